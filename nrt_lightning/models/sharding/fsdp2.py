"""Sharding by torch's `fully_shard` (FSDP2): each weight is divided among the processes."""

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
from typing_extensions import override

from nrt_lightning.models.sharding.base import ShardedWeights, blend, cast, layers_of, size_of


class FSDP2Sharding(ShardedWeights):
    """Each block of the model is a unit that is gathered for its forward and backward pass; the rest is one unit.

    Args:
        mesh: the processes among which the weights are divided.
        dtype: of the stored weights; None for the policy's.
        param_dtype: of the weights in forward and backward passes; None for the stored dtype. If it is set, gradients
            are summed over processes in float32.
    """

    def __init__(
        self, mesh: DeviceMesh, dtype: torch.dtype | None = None, param_dtype: torch.dtype | None = None
    ) -> None:
        super().__init__(dtype, param_dtype)
        self.mesh = mesh

    @override
    def apply(self, network: nn.Module, dtype: torch.dtype, *, has_adapter: bool) -> nn.Module:
        reduce_dtype = None if self.param_dtype is None else torch.float32
        precision = MixedPrecisionPolicy(param_dtype=self.param_dtype, reduce_dtype=reduce_dtype)
        stored = self.dtype or dtype
        self.whole_bytes = size_of(network, self.param_dtype or stored)
        for unit in [*layers_of(network), network]:  # one at a time, to bound the memory
            cast(unit, stored, frozen_only=has_adapter)
            fully_shard(unit, mesh=self.mesh, mp_policy=precision)
        return network

    @override
    @contextmanager
    def gather(self, network: nn.Module) -> Iterator[None]:
        units = [module for module in network.modules() if isinstance(module, FSDPModule)]
        with torch.inference_mode(False):  # weights gathered here are used in training later
            for unit in units:
                unit.unshard()
                unit.set_reshard_after_forward(False, recurse=False)
        try:
            yield
        finally:
            for unit in units:
                # The default: the backward pass needs the outermost unit first.
                unit.set_reshard_after_forward(unit is not network, recurse=False)
                unit.reshard()

    @override
    def read(self, module: nn.Module, names: Collection[str]) -> dict[str, Tensor]:
        found = {}
        for name, weight in module.named_parameters():
            if name in names:
                whole = whole_tensor(weight.detach())
                if dist.get_rank() == 0:
                    found[name] = whole.cpu()
        return found

    @override
    @torch.no_grad()
    def write(self, module: nn.Module, weights: dict[str, Tensor]) -> None:
        for name, weight in module.named_parameters():
            if name in weights:
                sharded: Any = weight
                whole = weights[name].to(weight.device, weight.dtype)
                sharded.copy_(distribute_tensor(whole, sharded.device_mesh, sharded.placements))

    @override
    def blend(self, module: nn.Module, other: nn.Module, names: Collection[str], rate: float) -> None:
        blend(module, other, names, rate)

    @override
    def freeze(self, network: Any) -> None:
        network.set_reshard_after_forward(True)

    @override
    def free(self, network: Any) -> None:
        if self.depth == 0:
            network.reshard()  # the outermost unit stays gathered after a forward pass

    @override
    def clip(self, module: nn.Module, largest: float) -> None:
        clip_grad_norm_(module.parameters(), largest)

    @override
    def grad_norm(self, module: nn.Module) -> Tensor:
        return whole_tensor(get_total_norm([p.grad for p in module.parameters() if p.grad is not None]))


def whole_tensor(tensor: Any) -> Tensor:
    """A sharded tensor gathered, a plain one unchanged."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
