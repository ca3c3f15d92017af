"""Learning-rate schedules over the length of the run, and the default optimizer."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch.nn import Parameter
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from typing_extensions import override

from nrt_lightning.errors import InputError
from nrt_lightning.training.parts import shown


def default_optimizer(params: Any, *, fused: bool = True) -> Optimizer:
    """AdamW with the settings of the paper's authors (arXiv 2602.11549), in one pass over the weights where torch can.

    Args:
        params: as torch's optimizers take them.
        fused: False for several passes in any case.
    """
    params = list(params)
    fused = fused and all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in params)
    return AdamW(params, lr=2e-6, betas=(0.9, 0.95), eps=1e-15, weight_decay=0.01, fused=fused)


def check_optimizer(make: object) -> None:
    """Check that the optimizer is a function, before any weights are read.

    Raises:
        InputError: it is an optimizer, or its settings.
    """
    if not callable(make):
        raise InputError(
            f"model.optimizer is {shown(make)}, not a function of the parameters. Give one, such as "
            "lambda parameters: AdamW(parameters, lr=2e-6)."
        )


def optimizer_of(make: Callable[..., Any], weights: Iterable[Parameter]) -> Any:
    """The optimizer of the weights that require a gradient.

    Raises:
        InputError: none does, or the function returns no optimizer.
    """
    trained = [parameter for parameter in weights if parameter.requires_grad]
    if not trained:
        raise InputError(
            "No weight of model.policy requires a gradient, so nothing would be trained. Set policy.adapter, for "
            "instance to LoRA, or requires_grad of the weights to train."
        )
    optimizer = make(trained)
    if not isinstance(optimizer, Optimizer):
        raise InputError(f"model.optimizer returned {shown(optimizer)}. Return an optimizer of torch.")
    return optimizer


class Schedule(ABC):
    """A learning-rate schedule over the optimizer steps of a run."""

    @abstractmethod
    def __call__(self, optimizer: Optimizer, total_steps: float) -> LRScheduler:
        """The scheduler, stepped after every optimizer step.

        Args:
            optimizer: its learning rate is scaled.
            total_steps: optimizer steps of the run; infinite if the trainer has no limit.
        """


@dataclass(frozen=True)
class Warmup:
    """A linear rise from 0.

    Args:
        warmup: number of optimizer steps or, below 1, fraction of the run.
    """

    warmup: float = 0.1

    def __post_init__(self) -> None:
        if self.warmup < 0:
            raise InputError(
                f"schedule.warmup is {self.warmup}: give a number of steps, or a fraction of the run below 1."
            )

    def warmup_steps(self, total_steps: float) -> int:
        """The steps of the rise.

        >>> Warmup(0.1).warmup_steps(50), Warmup(20).warmup_steps(50)
        (5, 20)
        """
        if self.warmup >= 1:
            return int(self.warmup)
        return int(self.warmup * finite(total_steps)) if self.warmup else 0


@dataclass(frozen=True)
class LinearSchedule(Warmup, Schedule):
    """A rise, then a linear decay to 0 at the end of the run."""

    @override
    def __call__(self, optimizer: Optimizer, total_steps: float) -> LRScheduler:
        from transformers import get_linear_schedule_with_warmup  # imports peft and bitsandbytes

        return get_linear_schedule_with_warmup(optimizer, self.warmup_steps(total_steps), finite(total_steps))


@dataclass(frozen=True)
class CosineSchedule(Warmup, Schedule):
    """A rise, then a cosine decay to 0 at the end of the run."""

    @override
    def __call__(self, optimizer: Optimizer, total_steps: float) -> LRScheduler:
        from transformers import get_cosine_schedule_with_warmup

        return get_cosine_schedule_with_warmup(optimizer, self.warmup_steps(total_steps), finite(total_steps))


@dataclass(frozen=True)
class ConstantSchedule(Warmup, Schedule):
    """A rise, then a constant. The only schedule for runs without a limit of steps."""

    @override
    def __call__(self, optimizer: Optimizer, total_steps: float) -> LRScheduler:
        from transformers import get_constant_schedule_with_warmup

        return get_constant_schedule_with_warmup(optimizer, self.warmup_steps(total_steps))


def finite(total_steps: float) -> int:
    """The steps of the run; raises `InputError` if the trainer has no limit."""
    if math.isinf(total_steps):
        raise InputError(
            "The schedule needs the number of steps: set trainer.max_steps or trainer.max_epochs, "
            "or use ConstantSchedule with a warmup in steps."
        )
    return int(total_steps)
