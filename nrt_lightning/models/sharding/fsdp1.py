"""Sharding by torch's `FullyShardedDataParallel` (FSDP1): each block's weights are one flat tensor."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.nn.utils import get_total_norm
from typing_extensions import override

from nrt_lightning.errors import InputError
from nrt_lightning.models.sharding.base import ShardedWeights, blend, cast, device_of, layers_of, plain_name, size_of


class FSDP1Sharding(ShardedWeights):
    """Each block of the model is a unit that is gathered for its forward and backward pass; the rest is one unit.

    Args:
        device: of this process.
        settings: of `FullyShardedDataParallel`; without `auto_wrap_policy` the units are the model's blocks.
        dtype: of the stored weights; None for the policy's.
    """

    def __init__(self, device: torch.device, settings: dict[str, Any], dtype: torch.dtype | None = None) -> None:
        super().__init__(dtype)  # weights are gathered in the stored dtype
        self.device = device
        self.settings = settings

    @override
    def check(self, dtype: torch.dtype, *, quantized: bool, adapter_dtype: str | None) -> None:
        super().check(dtype, quantized=quantized, adapter_dtype=adapter_dtype)
        stored = str(self.dtype or dtype).removeprefix("torch.")
        if adapter_dtype not in (None, stored):
            raise InputError(
                f"policy.adapter.dtype is {adapter_dtype} and the base's dtype is {stored}, but FSDPStrategy needs one "
                f"dtype per block. Set policy.adapter.dtype to {stored}, or use ModelParallelStrategy."
            )

    @override
    def apply(self, network: nn.Module, dtype: torch.dtype, *, has_adapter: bool) -> nn.Module:
        stored = self.dtype or dtype
        self.whole_bytes = size_of(network, stored)
        cast(network, stored, frozen_only=False)
        blocks = ModuleWrapPolicy({type(layer) for layer in layers_of(network)})
        settings = {"auto_wrap_policy": blocks} | self.settings
        return FullyShardedDataParallel(network, device_id=self.device, **settings)

    @override
    @contextmanager
    def gather(self, network: nn.Module) -> Iterator[None]:
        units: list[Any] = FullyShardedDataParallel.fsdp_modules(network)
        with FullyShardedDataParallel.summon_full_params(network, writeback=False):
            for unit in units:
                unit.forward = unit.module.__call__  # a unit's forward would free the weights
            try:
                yield
            finally:
                for unit in units:
                    del unit.forward

    @override
    def readable(self, network: nn.Module) -> Any:
        return self.gathered(network)  # the weights of a unit are one tensor

    @override
    def read(self, module: nn.Module, names: Collection[str]) -> dict[str, Tensor]:
        with FullyShardedDataParallel.summon_full_params(module, writeback=False):
            if dist.get_rank() != 0:
                return {}
            weights = {plain_name(name): weight for name, weight in module.named_parameters()}
            return {name: weight.detach().clone().cpu() for name, weight in weights.items() if name in names}

    @override
    @torch.no_grad()
    def write(self, module: nn.Module, weights: dict[str, Tensor]) -> None:
        with FullyShardedDataParallel.summon_full_params(module):
            for name, weight in module.named_parameters():
                if plain_name(name) in weights:
                    weight.copy_(weights[plain_name(name)])

    @override
    def blend(self, module: nn.Module, other: nn.Module, names: Collection[str], rate: float) -> None:
        summon = FullyShardedDataParallel.summon_full_params
        with summon(module), summon(other, writeback=False):  # both are whole for a moment
            blend(module, other, names, rate)

    @override
    def clip(self, module: nn.Module, largest: float) -> None:
        root = next(m for m in module.modules() if isinstance(m, FullyShardedDataParallel))
        root.clip_grad_norm_(largest)

    @override
    def grad_norm(self, module: nn.Module) -> Tensor:
        shards = [p.grad for p in module.parameters() if p.grad is not None]
        square = (get_total_norm(shards) if shards else torch.zeros((), device=device_of(module))).float() ** 2
        dist.all_reduce(square)
        return square.sqrt()
