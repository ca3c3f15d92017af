"""Layouts of a model's weights over processes: whole in each, or sharded and gathered for sampling."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, get_total_norm
from typing_extensions import override

from nrt_lightning.errors import InputError
from nrt_lightning.models.sharding.memory import free_memory


class Sharding(ABC):
    """A layout of a language model's weights over processes.

    In all methods `network` is the language model, and `module` is a module that contains it and whose parameter names
    are used.
    """

    active: bool = True  # True: the weights are sharded

    def check(  # noqa: B027  (optional)
        self, dtype: torch.dtype, *, quantized: bool, adapter_dtype: str | None
    ) -> None:
        """Raise `InputError` if weights cannot have this layout; called before they are read.

        Args:
            dtype: of the weights, unless the layout names another.
            quantized: True if they are stored in fewer bits.
            adapter_dtype: of an adapter's weights; None without an adapter or if it is the base's.
        """

    @abstractmethod
    def apply(self, network: nn.Module, dtype: torch.dtype, *, has_adapter: bool) -> nn.Module:
        """Lay out newly read weights in place and return the module to call.

        Args:
            network: the language model, possibly with an adapter in its layers.
            dtype: of the weights, unless the layout names another.
            has_adapter: True if only an adapter is trained.
        """

    @abstractmethod
    def gathered(self, network: nn.Module) -> Any:
        """A context with whole weights in every process, where forward passes do not communicate.

        All processes must enter and leave it together.
        """

    def readable(self, network: nn.Module) -> Any:
        """A context in which each weight can be gathered separately. All processes must enter and leave it together."""
        return nullcontext()

    @abstractmethod
    def read(self, module: nn.Module, names: Collection[str]) -> dict[str, Tensor]:
        """Whole copies of the named weights on the CPU in process 0, {} in the others. All processes must call it."""

    @abstractmethod
    def write(self, module: nn.Module, weights: dict[str, Tensor]) -> None:
        """Set weights from whole ones, which every process must give."""

    @abstractmethod
    def blend(self, module: nn.Module, other: nn.Module, names: Collection[str], rate: float) -> None:
        """Interpolate the named weights: `module <- (1 - rate) module + rate other`, both in this layout."""

    def freeze(self, network: nn.Module) -> None:  # noqa: B027  (optional)
        """Free gathered weights after each forward pass, because no backward pass follows."""

    def free(self, network: nn.Module) -> None:  # noqa: B027  (optional)
        """Free the weights that a forward pass without a backward pass has left gathered."""

    @abstractmethod
    def clip(self, module: nn.Module, largest: float) -> None:
        """Scale the gradients so that their norm over all processes is at most `largest`."""

    @abstractmethod
    def grad_norm(self, module: nn.Module) -> Tensor:
        """The norm of the gradient over all processes."""


class NoSharding(Sharding):
    """Whole weights in every process."""

    active = False

    @override
    def apply(self, network: nn.Module, dtype: torch.dtype, *, has_adapter: bool) -> nn.Module:
        return network

    @override
    def gathered(self, network: nn.Module) -> Any:
        return nullcontext()

    @override
    def read(self, module: nn.Module, names: Collection[str]) -> dict[str, Tensor]:
        return {name: weight.detach().cpu() for name, weight in module.named_parameters() if name in names}

    @override
    @torch.no_grad()
    def write(self, module: nn.Module, weights: dict[str, Tensor]) -> None:
        parameters = dict(module.named_parameters())
        for name, weight in weights.items():
            parameters[name].copy_(weight)

    @override
    def blend(self, module: nn.Module, other: nn.Module, names: Collection[str], rate: float) -> None:
        blend(module, other, names, rate)

    @override
    def clip(self, module: nn.Module, largest: float) -> None:
        clip_grad_norm_(module.parameters(), largest)

    @override
    def grad_norm(self, module: nn.Module) -> Tensor:
        return get_total_norm([p.grad for p in module.parameters() if p.grad is not None])


class ShardedWeights(Sharding):
    """Base class of both generations of FSDP.

    Args:
        dtype: of the stored weights; None for the policy's.
        param_dtype: of the weights in forward and backward passes; None for the stored dtype.
    """

    def __init__(self, dtype: torch.dtype | None, param_dtype: torch.dtype | None = None) -> None:
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.whole_bytes = 0  # of the whole weights
        self.depth = 0  # of nested `gathered` contexts

    @override
    def check(self, dtype: torch.dtype, *, quantized: bool, adapter_dtype: str | None) -> None:
        if quantized:
            raise InputError(
                "policy.quantization stores weights in blocks whose scales cannot be sharded. Set trainer.strategy to "
                "ddp, with the whole base on every device (in 4 bits an eighth of float32), or policy.quantization to "
                "null."
            )

    @override
    @contextmanager
    def gathered(self, network: nn.Module) -> Iterator[None]:
        """Gather the weights, unless an outer context has gathered them.

        Raises:
            InputError: the whole weights do not fit on a device. All processes raise it.
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
        """The context that gathers the weights and frees them on exit."""

    def check_fit(self, network: nn.Module) -> None:
        """Raise on all ranks if gathering would not fit on any; otherwise the collective deadlocks."""
        device = device_of(network)
        needed, free = self.whole_bytes, free_memory(device)
        spare = torch.tensor(2**62 if free is None else free - needed, device=device)
        dist.all_reduce(spare, op=dist.ReduceOp.MIN)
        if spare < 0:
            raise InputError(
                f"Sampling needs whole weights, {needed / 2**30:.2f} GiB on every device. At least one device lacks "
                f"{-int(spare) / 2**30:.2f} GiB ({device} has {(free or 0) / 2**30:.2f} GiB free). Use an engine on "
                "other devices, set trainer.precision to bf16-mixed or bf16-true, or choose a smaller policy.model."
            )


def device_of(network: nn.Module) -> torch.device:
    """The device of the weights."""
    return next(network.parameters()).device


def plain_name(name: str) -> str:
    """The name of a weight without FSDP1's wrappers.

    >>> plain_name("model.layers.0._fsdp_wrapped_module.mlp.weight")
    'model.layers.0.mlp.weight'
    """
    return name.replace("_fsdp_wrapped_module.", "")


def layers_of(network: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a language model, each of which is gathered as a unit.

    Raises:
        InputError: the model does not name them.
    """
    names = set(getattr(network, "_no_split_modules", None) or ())
    layers = [module for module in network.modules() if type(module).__name__ in names]
    if not layers:
        raise InputError(
            f"{type(network).__name__} does not name its blocks (`_no_split_modules`) and cannot be sharded. Set "
            "trainer.strategy to ddp, or use a model of transformers."
        )
    return layers


def cast(module: nn.Module, dtype: torch.dtype, *, frozen_only: bool) -> None:
    """Change the dtype of a module's weights; with `frozen_only`, of the frozen ones."""
    for parameter in module.parameters():
        if parameter.is_floating_point() and not (frozen_only and parameter.requires_grad):
            parameter.data = parameter.data.to(dtype)


@torch.no_grad()
def blend(module: nn.Module, other: nn.Module, names: Collection[str], rate: float) -> None:
    """Interpolate the named weights, whole or sharded: `module <- (1 - rate) module + rate other`."""
    targets = {plain_name(name): weight for name, weight in other.named_parameters()}
    for name, weight in module.named_parameters():
        if plain_name(name) in names:
            weight.lerp_(targets[plain_name(name)].to(weight.device, weight.dtype), rate)


def size_of(network: nn.Module, dtype: torch.dtype) -> int:
    """Bytes of all weights in a dtype."""
    return sum(parameter.numel() for parameter in network.parameters()) * dtype.itemsize
