"""How a policy's weights lie over processes: whole in every one, or sharded, and gathered to be sampled from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, get_total_norm

from nrt_lightning.errors import InputError
from nrt_lightning.models.sharding.memory import free_memory


class Sharding(ABC):
    """How the weights of a language model are laid out over the processes.

    `network` is the language model itself; `module` is any module that holds it, by whose names weights are told apart.
    """

    active: bool = True  # whether they are sharded

    def check(  # noqa: B027  (whole weights can be laid out anyhow)
        self, dtype: torch.dtype, *, quantized: bool, adapter_dtype: str | None
    ) -> None:
        """Refuse weights that cannot be laid out so, before they are read.

        Args:
            dtype: of the weights, where the layout names none.
            quantized: whether they are stored in fewer bits.
            adapter_dtype: of an adapter's weights; None without an adapter or where it follows the base.
        """

    @abstractmethod
    def apply(self, network: nn.Module, dtype: torch.dtype, *, has_adapter: bool) -> nn.Module:
        """Lay out the weights that have just been read, in place, and return the module to call.

        Args:
            network: the language model, with an adapter in its layers or without.
            dtype: of the weights, where the layout names none.
            has_adapter: whether the weights that are trained are an adapter's.
        """

    @abstractmethod
    def gathered(self, network: nn.Module) -> Any:
        """A context with whole weights in every process: forward passes inside do not communicate.

        All processes enter and leave it together.
        """

    def readable(self, network: nn.Module) -> Any:
        """A context in which every weight can be gathered by itself. All processes enter and leave it together."""
        return nullcontext()

    @abstractmethod
    def read(self, module: nn.Module, names: Collection[str]) -> dict[str, Tensor]:
        """Whole copies of these weights on the CPU, in process 0; nothing in the others, which take part."""

    @abstractmethod
    def write(self, module: nn.Module, weights: dict[str, Tensor]) -> None:
        """Set weights to whole ones, which every process has."""

    @abstractmethod
    def blend(self, module: nn.Module, other: nn.Module, names: Collection[str], share: float) -> None:
        """Move these weights towards those of a module with the same layout, by `share` of the way."""

    def freeze(self, network: nn.Module) -> None:  # noqa: B027  (most have nothing to do)
        """Keep nothing gathered after a forward pass: none of a backward pass will follow."""

    def free(self, network: nn.Module) -> None:  # noqa: B027  (most have nothing to do)
        """Free what a forward pass has left gathered for a backward pass that will not follow."""

    @abstractmethod
    def clip(self, module: nn.Module, largest: float) -> None:
        """Scale the gradients so that their norm over all processes is at most `largest`."""

    @abstractmethod
    def grad_norm(self, module: nn.Module) -> Tensor:
        """The norm of the whole gradient."""


class NoSharding(Sharding):
    """Whole in every process."""

    active = False

    def apply(self, network: nn.Module, dtype: torch.dtype, *, has_adapter: bool) -> nn.Module:
        """Whole weights stay as they are."""
        return network

    def gathered(self, network: nn.Module) -> Any:
        """Whole weights need no gathering."""
        return nullcontext()

    def read(self, module: nn.Module, names: Collection[str]) -> dict[str, Tensor]:
        """See `Sharding`. Every process has them."""
        return {name: weight.detach().cpu() for name, weight in module.named_parameters() if name in names}

    @torch.no_grad()
    def write(self, module: nn.Module, weights: dict[str, Tensor]) -> None:
        """See `Sharding`."""
        own = dict(module.named_parameters())
        for name, weight in weights.items():
            own[name].copy_(weight)

    def blend(self, module: nn.Module, other: nn.Module, names: Collection[str], share: float) -> None:
        """See `Sharding`."""
        blend(module, other, names, share)

    def clip(self, module: nn.Module, largest: float) -> None:
        """See `Sharding`."""
        clip_grad_norm_(module.parameters(), largest)

    def grad_norm(self, module: nn.Module) -> Tensor:
        """See `Sharding`."""
        return get_total_norm([p.grad for p in module.parameters() if p.grad is not None])


class ShardedWeights(Sharding):
    """What both generations of FSDP have in common.

    Args:
        dtype: in which the weights are stored; None for the policy's.
        param_dtype: of the weights while they are computed with; None for that in which they are stored.
    """

    def __init__(self, dtype: torch.dtype | None, param_dtype: torch.dtype | None = None) -> None:
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.whole_bytes = 0  # of the whole weights
        self.depth = 0  # of contexts that have gathered the weights

    def check(self, dtype: torch.dtype, *, quantized: bool, adapter_dtype: str | None) -> None:
        """See `Sharding`."""
        if quantized:
            raise InputError(
                "policy.quantization stores weights in blocks that cannot be sharded with their scales. A base in 4 "
                "bits is an eighth of its size in float32: set trainer.strategy to ddp, with the whole of it on every "
                "device, or set policy.quantization to null."
            )

    @contextmanager
    def gathered(self, network: nn.Module) -> Iterator[None]:
        """See `Sharding`. Inside another such context it does nothing.

        Raises:
            InputError: the whole weights do not fit on one of the devices. All processes raise it.
        """
        if self.depth == 0:
            self.check_fit(network)
            context = self.gather(network)
        else:
            context = nullcontext()
        self.depth += 1
        try:
            with context:
                yield
        finally:
            self.depth -= 1

    @abstractmethod
    def gather(self, network: nn.Module) -> Any:
        """The context that gathers and frees."""

    def check_fit(self, network: nn.Module) -> None:
        """Raise on all ranks if gathering would not fit on any; otherwise the collective deadlocks."""
        device = device_of(network)
        needed, free = self.whole_bytes, free_memory(device)
        spare = torch.tensor(2**62 if free is None else free - needed, device=device)
        dist.all_reduce(spare, op=dist.ReduceOp.MIN)
        if spare < 0:
            raise InputError(
                f"Traces are sampled from whole weights, which take {needed / 2**30:.2f} GiB on every device, and "
                f"{-int(spare) / 2**30:.2f} GiB of that are missing on at least one ({device} has "
                f"{(free or 0) / 2**30:.2f} GiB free). Sample elsewhere with an engine that has devices of its own, "
                "set trainer.precision to bf16-mixed or bf16-true, or choose a smaller policy.model."
            )


def device_of(network: nn.Module) -> torch.device:
    """The device that the weights are on."""
    return next(network.parameters()).device


def plain_name(name: str) -> str:
    """The name of a weight without the wrappers that FSDP1 puts around its module.

    >>> plain_name("model.layers.0._fsdp_wrapped_module.mlp.weight")
    'model.layers.0.mlp.weight'
    """
    return name.replace("_fsdp_wrapped_module.", "")


def layers_of(network: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a language model, each a unit that is gathered by itself.

    Raises:
        InputError: the model does not say which they are.
    """
    names = set(getattr(network, "_no_split_modules", None) or ())
    layers = [module for module in network.modules() if type(module).__name__ in names]
    if not layers:
        raise InputError(
            f"{type(network).__name__} does not name the blocks that it consists of (`_no_split_modules`), so it "
            "cannot be sharded block by block. Set trainer.strategy to ddp, or use a model of transformers."
        )
    return layers


def cast(module: nn.Module, dtype: torch.dtype, frozen_only: bool) -> None:
    """Change the dtype of a module's weights; with `frozen_only` those of an adapter stay as they are."""
    for parameter in module.parameters():
        if parameter.is_floating_point() and not (frozen_only and parameter.requires_grad):
            parameter.data = parameter.data.to(dtype)


@torch.no_grad()
def blend(module: nn.Module, other: nn.Module, names: Collection[str], share: float) -> None:
    """Move these weights towards those of another: whole ones, or shares that belong to one another."""
    theirs = {plain_name(name): weight for name, weight in other.named_parameters()}
    for name, weight in module.named_parameters():
        if plain_name(name) in names:
            its = theirs[plain_name(name)]
            weight.lerp_(its.to(weight.device, weight.dtype), share)


def size_of(network: nn.Module, dtype: torch.dtype) -> int:
    """Bytes of all weights in this dtype."""
    return sum(parameter.numel() for parameter in network.parameters()) * dtype.itemsize
