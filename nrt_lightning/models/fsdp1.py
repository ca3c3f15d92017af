"""Weights sharded by torch's `FullyShardedDataParallel` (FSDP1): the weights of a block as one flat tensor."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.nn.utils import get_total_norm

from nrt_lightning.errors import InputError
from nrt_lightning.models.sharding import ShardedWeights, blend, cast, layers_of, plain_name, size_of

if TYPE_CHECKING:
    from nrt_lightning.models.policy import Policy


class FSDP1Sharding(ShardedWeights):
    """Each block of the model is a unit that is gathered for its forward and backward pass; the rest is another.

    Args:
        device: of this process.
        settings: of `FullyShardedDataParallel`; without an `auto_wrap_policy` the model's blocks are the units.
        dtype: in which the weights are stored; None for the policy's.
    """

    def __init__(self, device: torch.device, settings: dict[str, Any], dtype: torch.dtype | None = None) -> None:
        super().__init__(dtype)  # weights are gathered as they are stored
        self.device = device
        self.settings = settings

    def check(self, policy: Policy) -> None:
        """See `Sharding`."""
        super().check(policy)
        own = getattr(policy.adapter, "dtype", None)
        dtype = str(self.dtype or policy.dtype).removeprefix("torch.")
        if own is not None and own != dtype:
            raise InputError(
                f"adapter.dtype is {own} and the base's is {dtype}, but FSDPStrategy puts all weights of a block into "
                f"one tensor. Set adapter.dtype to {dtype}, or use ModelParallelStrategy."
            )

    def apply(self, policy: Policy) -> None:
        """See `Sharding`."""
        network, dtype = policy.network, self.dtype or policy.dtype
        self.whole_bytes = size_of(network, dtype)
        cast(network, dtype, frozen_only=False)
        blocks = ModuleWrapPolicy({type(layer) for layer in layers_of(network)})
        settings = {"auto_wrap_policy": blocks} | self.settings
        wrapped = FullyShardedDataParallel(network, device_id=self.device, **settings)
        if policy.adapter is None:
            policy.model = wrapped
        else:
            policy.model.base_model.model = wrapped

    @contextmanager
    def gather(self, policy: Policy) -> Iterator[None]:
        """See `ShardedWeights`. Inside, units call their modules directly: they would free the weights after use."""
        root = policy.network
        units: list[Any] = FullyShardedDataParallel.fsdp_modules(root)
        with FullyShardedDataParallel.summon_full_params(root, writeback=False):
            for unit in units:
                unit.forward = unit.module.__call__
            try:
                yield
            finally:
                for unit in units:
                    del unit.forward

    def readable(self, policy: Policy) -> Any:
        """See `Sharding`. Weights of a unit are one tensor, so all are whole."""
        return self.gathered(policy)

    def read(self, policy: Policy, names: Collection[str]) -> dict[str, Tensor]:
        """See `Sharding`."""
        with FullyShardedDataParallel.summon_full_params(policy, writeback=False):
            if dist.get_rank() != 0:
                return {}
            weights = {plain_name(name): weight for name, weight in policy.named_parameters()}
            return {name: weight.detach().clone().cpu() for name, weight in weights.items() if name in names}

    @torch.no_grad()
    def write(self, policy: Policy, weights: dict[str, Tensor]) -> None:
        """See `Sharding`."""
        with FullyShardedDataParallel.summon_full_params(policy):
            for name, weight in policy.named_parameters():
                if plain_name(name) in weights:
                    weight.copy_(weights[plain_name(name)])

    def blend(self, policy: Policy, other: Policy, names: Collection[str], share: float) -> None:
        """See `Sharding`. Both are whole for a moment."""
        summon = FullyShardedDataParallel.summon_full_params
        with summon(policy), summon(other, writeback=False):
            blend(policy, other, names, share)

    def clip(self, policy: Policy, largest: float) -> None:
        """See `Sharding`."""
        root: Any = policy.network
        root.clip_grad_norm_(largest)

    def grad_norm(self, policy: Policy) -> Tensor:
        """See `Sharding`."""
        shares = [p.grad for p in policy.parameters() if p.grad is not None]
        square = (get_total_norm(shares) if shares else torch.zeros((), device=policy.device)).float() ** 2
        dist.all_reduce(square)
        return square.sqrt()
