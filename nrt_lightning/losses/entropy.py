"""A bonus for the entropy of the policy, as a term of the loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nrt_lightning.functional import check_at_least


@dataclass
class EntropyBonus:
    """`-coef * H`, with H the entropy of each sampled token's distribution, reduced as the other terms are.

    RLPR has it with 0.001 (arXiv 2506.18254 and its code).

    Args:
        coef: weight of the entropy.

    Raises:
        InputError: if `coef` is negative.
    """

    adapts = False  # True: it reads the entropy of the steps
    coef: float = 0.001

    def __post_init__(self) -> None:
        check_at_least("entropy_bonus.coef", self.coef, 0)

    @property
    def weight(self) -> float:
        """The coefficient of the next step."""
        return self.coef

    def observe(self, entropy: float) -> None:
        """See the mean entropy of a micro-batch of all processes, in nats per token."""

    def step(self) -> None:
        """Adjust the coefficient; called after every optimizer step."""

    def state_dict(self) -> dict[str, Any]:
        """The state to store in a checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""


@dataclass
class AdaptiveEntropyBonus(EntropyBonus):
    """An `EntropyBonus` whose coefficient keeps the entropy near a target.

    After every optimizer step the coefficient rises by `change` if the mean entropy of the step's tokens was below the
    target, and falls by `change`, at most to 0, if it was above. It is 0 in steps after an entropy above the target
    (arXiv 2505.22312).

    Args:
        coef: the coefficient at the beginning.
        target: entropy in nats per token.
        change: by which the coefficient rises or falls.
        largest: upper bound of the coefficient.

    Raises:
        InputError: if a number is negative.

    Example:
        >>> bonus = AdaptiveEntropyBonus(coef=0.001, target=0.2, change=0.005)
        >>> bonus.observe(0.1)
        >>> bonus.step()
        >>> round(bonus.weight, 4)
        0.006
    """

    adapts = True
    target: float = 0.2
    change: float = 0.005
    largest: float = 1.0
    _coef: float = field(default=0.0, init=False, repr=False, compare=False)
    _above: bool = field(default=False, init=False, repr=False, compare=False)
    _seen: list[float] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("target", "change", "largest"):
            check_at_least(f"entropy_bonus.{name}", getattr(self, name), 0)
        self._coef = self.coef

    @property
    def weight(self) -> float:
        """The coefficient of the next step."""
        return 0.0 if self._above else self._coef

    def observe(self, entropy: float) -> None:
        """See the mean entropy of a micro-batch of all processes, in nats per token."""
        self._seen.append(entropy)

    def step(self) -> None:
        """Adjust the coefficient to what was observed since the last step."""
        if not self._seen:
            return
        self._above = sum(self._seen) / len(self._seen) > self.target
        self._coef += -self.change if self._above else self.change
        self._coef, self._seen = min(max(self._coef, 0.0), self.largest), []

    def state_dict(self) -> dict[str, Any]:
        """The coefficient, and what was observed since the last step."""
        return {"coef": self._coef, "above": self._above, "seen": self._seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self._coef = state.get("coef", self._coef)
        self._above, self._seen = state.get("above", self._above), list(state.get("seen", self._seen))
