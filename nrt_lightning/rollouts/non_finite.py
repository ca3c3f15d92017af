"""The error for logits that no token can be sampled from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from nrt_lightning.errors import InputError

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy


class NonFiniteLogits(InputError):
    """The model gives logits that are not finite. In a run, `NonFiniteGuard` adds the optimizer step."""


def is_finite(values: Tensor) -> Tensor:
    """True if no value is NaN or infinite, as a tensor: reading it would wait for the device.

    Args:
        values: log-probs of sampled tokens, or for greedy decoding the largest logits; NaN or infinite if a logit is.
    """
    return values.isfinite().all()


def check_finite(finite: Tensor, policy: Policy, tokens: int) -> None:
    """Check that all logits so far were finite.

    Args:
        finite: of `is_finite`.
        policy: that is sampled from.
        tokens: that have been sampled of each row.

    Raises:
        NonFiniteLogits: names the model, the number of tokens, and a weight that is not finite.
    """
    if bool(finite):
        return
    bad = next((name for name, weight in policy.named_parameters() if not bool(weight.isfinite().all())), None)
    why = f"its weight {bad} is not finite" if bad else f"all its weights are finite, so {policy.dtype} may overflow"
    fix = "Resume an earlier checkpoint" if bad else "Use trainer.precision=32-true or bf16-mixed"
    raise NonFiniteLogits(
        f"The logits of the model {policy.source!r} are not finite within the first {tokens} tokens, so nothing can be "
        f"sampled: {why}. {fix}."
    )
