"""The share of a group's traces that are drawn with the answer in the prompt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from nrt_lightning.errors import InputError
from nrt_lightning.functional import check_fraction


class Share(ABC):
    """The share over a run. All state follows from the run's rewards, and checkpoints hold it."""

    needs_progress = False  # True: it reads how much of the run is done
    reads_rewards = False  # True: it reads the rewards of the policy's own traces

    @abstractmethod
    def now(self, progress: float) -> float:
        """The share, from 0 to 1.

        Args:
            progress: fraction of the run that is done.
        """

    def observe(self, reward: float) -> None:  # noqa: B027  (most shares read no rewards)
        """See the mean reward of the policy's own traces of a micro-batch, of all processes."""

    def state_dict(self) -> dict[str, Any]:
        """The state to store in a checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Restore the state from a checkpoint."""


def check_share(name: str, value: float) -> None:
    """Raise `InputError` unless a share is from 0 to 1."""
    check_fraction(f"answer_conditioned.{name}", value)


@dataclass(frozen=True)
class FixedShare(Share):
    """The same share in the whole run; CoVRL has one half (arXiv 2512.12576).

    Args:
        share: from 0 to 1.

    Raises:
        InputError: the share is out of range.
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        check_share("share", self.share)

    def now(self, progress: float) -> float:
        """The share."""
        return self.share


@dataclass(frozen=True)
class FallingShare(Share):
    """A share that falls linearly from `start` to `end` over the first `until` of the run.

    Args:
        start: share at the beginning.
        end: share from `until` on.
        until: fraction of the run.

    Raises:
        InputError: a number is out of range.

    Example:
        >>> [FallingShare(start=0.5, end=0.0, until=0.5).now(done) for done in (0.0, 0.25, 0.5, 1.0)]
        [0.5, 0.25, 0.0, 0.0]
    """

    needs_progress = True
    start: float = 0.5
    end: float = 0.0
    until: float = 1.0

    def __post_init__(self) -> None:
        for name in ("start", "end", "until"):
            check_share(f"share.{name}", getattr(self, name))

    def now(self, progress: float) -> float:
        """The share after this fraction of the run."""
        done = min(progress / self.until, 1.0) if self.until else 1.0
        return self.start + (self.end - self.start) * done


@dataclass
class ShareByReward(Share):
    """A share that falls linearly from `start` to 0 as the reward of the policy's own traces rises.

    The reward is a moving average over micro-batches, of traces that were drawn without the answer.

    Args:
        start: share at a reward of `low` or less.
        low: reward up to which the share is `start`.
        high: reward from which it is 0.
        momentum: of the moving average.

    Raises:
        InputError: a number is out of range, or `high` is not above `low`.

    Example:
        >>> share = ShareByReward(start=0.5, low=0.0, high=1.0, momentum=0.0)
        >>> share.observe(0.5)
        >>> share.now(progress=0.0)
        0.25
    """

    reads_rewards = True
    start: float = 0.5
    low: float = 0.0
    high: float = 1.0
    momentum: float = 0.9
    _reward: float | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_share("share.start", self.start)
        check_share("share.momentum", self.momentum)
        if not self.high > self.low:
            raise InputError(
                f"answer_conditioned.share.high is {self.high} and low {self.low}: the share falls as the reward rises "
                "from low to high. Set high above low."
            )

    def now(self, progress: float) -> float:
        """The share at the rewards seen so far."""
        reward = self.low if self._reward is None else self._reward
        return self.start * (1 - min(max((reward - self.low) / (self.high - self.low), 0.0), 1.0))

    def observe(self, reward: float) -> None:
        """Update the moving average."""
        before = reward if self._reward is None else self._reward
        self._reward = self.momentum * before + (1 - self.momentum) * reward

    def state_dict(self) -> dict[str, Any]:
        """The moving average."""
        return {"reward": self._reward}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the moving average."""
        self._reward = state.get("reward", self._reward)
