"""Weights sharded by torch's `fully_shard` (FSDP2): every weight of every block divided among the processes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import clip_grad_norm_, get_total_norm

from nrt_lightning.models.sharding.base import ShardedWeights, blend, cast, layers_of, size_of


class FSDP2Sharding(ShardedWeights):
    """Each block of the model is a unit that is gathered for its forward and backward pass; the rest is another.

    Args:
        mesh: of the processes that the weights are divided among.
        dtype: in which the weights are stored; None for the policy's.
        param_dtype: of the weights while they are computed with; None for that in which they are stored. Gradients
            are summed over processes in float32.
    """

    def __init__(
        self, mesh: DeviceMesh, dtype: torch.dtype | None = None, param_dtype: torch.dtype | None = None
    ) -> None:
        super().__init__(dtype, param_dtype)
        self.mesh = mesh

    def apply(self, network: nn.Module, dtype: torch.dtype, *, has_adapter: bool) -> nn.Module:
        """See `Sharding`. A unit is brought to the dtype and to its device just before it is divided."""
        reduce_dtype = None if self.param_dtype is None else torch.float32
        precision = MixedPrecisionPolicy(param_dtype=self.param_dtype, reduce_dtype=reduce_dtype)
        stored = self.dtype or dtype
        self.whole_bytes = size_of(network, self.param_dtype or stored)
        for unit in [*layers_of(network), network]:
            cast(unit, stored, frozen_only=has_adapter)
            fully_shard(unit, mesh=self.mesh, mp_policy=precision)
        return network

    @contextmanager
    def gather(self, network: nn.Module) -> Iterator[None]:
        """See `ShardedWeights`."""
        units = [module for module in network.modules() if isinstance(module, FSDPModule)]
        with torch.inference_mode(False):  # what is gathered now serves training later
            for unit in units:
                unit.unshard()
                unit.set_reshard_after_forward(False, recurse=False)
        try:
            yield
        finally:
            for unit in units:
                # As it is by default: the outermost unit is needed first in the backward pass.
                unit.set_reshard_after_forward(unit is not network, recurse=False)
                unit.reshard()

    def read(self, module: nn.Module, names: Collection[str]) -> dict[str, Tensor]:
        """See `Sharding`. One weight at a time is whole."""
        found = {}
        for name, weight in module.named_parameters():
            if name in names:
                whole = whole_tensor(weight.detach())
                if dist.get_rank() == 0:
                    found[name] = whole.cpu()
        return found

    @torch.no_grad()
    def write(self, module: nn.Module, weights: dict[str, Tensor]) -> None:
        """See `Sharding`."""
        for name, weight in module.named_parameters():
            if name in weights:
                share: Any = weight
                whole = weights[name].to(weight.device, weight.dtype)
                share.copy_(distribute_tensor(whole, share.device_mesh, share.placements))

    def blend(self, module: nn.Module, other: nn.Module, names: Collection[str], share: float) -> None:
        """See `Sharding`. A process moves its shares."""
        blend(module, other, names, share)

    def freeze(self, network: Any) -> None:
        """See `Sharding`."""
        network.set_reshard_after_forward(True)

    def free(self, network: Any) -> None:
        """See `Sharding`. The outermost unit stays gathered after a forward pass."""
        if self.depth == 0:
            network.reshard()

    def clip(self, module: nn.Module, largest: float) -> None:
        """See `Sharding`."""
        clip_grad_norm_(module.parameters(), largest)

    def grad_norm(self, module: nn.Module) -> Tensor:
        """See `Sharding`."""
        return whole_tensor(get_total_norm([p.grad for p in module.parameters() if p.grad is not None]))


def whole_tensor(tensor: Any) -> Tensor:
    """A sharded tensor, gathered; a plain one as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
