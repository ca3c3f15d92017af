"""Learning-rate schedules that know how long the run is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_constant_schedule_with_warmup, get_cosine_schedule_with_warmup
from transformers import get_linear_schedule_with_warmup as linear_with_warmup

from nrt_lightning.errors import InputError


class Schedule(ABC):
    """A learning rate over the optimizer steps of a run."""

    @abstractmethod
    def __call__(self, optimizer: Optimizer, total_steps: float) -> LRScheduler:
        """The scheduler, to be stepped after every optimizer step.

        Args:
            optimizer: whose learning rate it scales.
            total_steps: optimizer steps of the run; infinite where the trainer has no limit.
        """


@dataclass(frozen=True)
class Warmup:
    """Steps of a linear rise from 0.

    Args:
        warmup: optimizer steps, or a share of the run if below 1.
    """

    warmup: float = 0.1

    def __post_init__(self) -> None:
        if self.warmup < 0:
            raise InputError(
                f"schedule.warmup is {self.warmup}: give a number of steps, or a share of the run below 1."
            )

    def warmup_steps(self, total_steps: float) -> int:
        """The rise's length.

        >>> Warmup(0.1).warmup_steps(50), Warmup(20).warmup_steps(50)
        (5, 20)
        """
        if self.warmup >= 1:
            return int(self.warmup)
        return int(self.warmup * finite(total_steps)) if self.warmup else 0


@dataclass(frozen=True)
class LinearSchedule(Warmup, Schedule):
    """A rise, then a straight fall to 0 at the end of the run."""

    def __call__(self, optimizer: Optimizer, total_steps: float) -> LRScheduler:
        """See `Schedule`."""
        return linear_with_warmup(optimizer, self.warmup_steps(total_steps), finite(total_steps))


@dataclass(frozen=True)
class CosineSchedule(Warmup, Schedule):
    """A rise, then half a cosine down to 0 at the end of the run."""

    def __call__(self, optimizer: Optimizer, total_steps: float) -> LRScheduler:
        """See `Schedule`."""
        return get_cosine_schedule_with_warmup(optimizer, self.warmup_steps(total_steps), finite(total_steps))


@dataclass(frozen=True)
class ConstantSchedule(Warmup, Schedule):
    """A rise, then no change: the one schedule for runs without an end."""

    def __call__(self, optimizer: Optimizer, total_steps: float) -> LRScheduler:
        """See `Schedule`."""
        return get_constant_schedule_with_warmup(optimizer, self.warmup_steps(total_steps))


def finite(total_steps: float) -> int:
    """The run's length, or an error that says how to give it one."""
    if math.isinf(total_steps):
        raise InputError(
            "This schedule must know when the run ends: set trainer.max_steps or trainer.max_epochs, "
            "or use ConstantSchedule with a warmup in steps."
        )
    return int(total_steps)
