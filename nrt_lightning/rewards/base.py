"""What every aggregation of the answer's confidences shares."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from nrt_lightning.functional import at_least_float32, check_same_shape
from nrt_lightning.structures import TraceReward


class RewardAggregator(ABC):
    """Turns the policy's confidences in the answer, c_1..c_T, into the trace reward R = f(c_1..c_T).

    The derivative of f also says what each answer token is worth: the gradient of E[R] contains
    `sum_i alpha_i c_i grad log pi(y*_i | x, z, y*_<i)` with `alpha_i = df/dc_i` (arXiv 2602.11549), and the products
    `alpha_i c_i = df/dlog c_i` are the token weights.

    An answer without tokens is no evidence for its trace. It gets the lowest value the aggregation can take: 0, or
    minus infinity for `LogProb` (the product over no tokens would be 1, the best value of all). Advantage estimators
    leave rows without a finite value out of their group.

    A subclass declares `needs_baseline` and implements `__call__`.
    """

    needs_baseline: ClassVar[bool] = False  # whether `baseline_logprobs` must be given
    minimum: ClassVar[float] = 0.0  # the lowest value it can take, that of an answer without tokens

    @property
    def name(self) -> str:
        """The name used in logs, such as `geometric_mean`."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()

    @abstractmethod
    def __call__(
        self, answer_logprobs: Tensor, answer_mask: Tensor, baseline_logprobs: Tensor | None = None
    ) -> TraceReward:
        """Aggregate the answer's log-probs.

        Args:
            answer_logprobs: `[N, T]` of the answer tokens after the trace, in nats; detached, as a rule.
            answer_mask: `[N, T]` bool. Positions outside may hold anything.
            baseline_logprobs: `[N, T]` of the same tokens after the empty trace.

        Returns:
            The trace reward `[N]` and the token weights `[N, T]`, in float32 or float64.

        Raises:
            InputError: if shapes differ, or a baseline is needed and missing.
        """


def answer_only(logprobs: Tensor, answer_mask: Tensor, name: str = "answer_logprobs") -> tuple[Tensor, Tensor]:
    """Log-probs in at least float32 with 0 outside the answer, and the length of each answer.

    Args:
        logprobs: `[N, T]`; anything outside the answer.
        answer_mask: `[N, T]` bool.
        name: what the log-probs are, for the error message.

    Returns:
        The log-probs `[N, T]`, and the lengths `[N, 1]` in the same type, at least 1.

    Raises:
        InputError: if the shapes differ.

    Example:
        >>> answer_only(torch.tensor([[-1.0, float("nan")]]), torch.tensor([[True, False]]))
        (tensor([[-1.,  0.]]), tensor([[1.]]))
    """
    check_same_shape(name, logprobs, "answer_mask", answer_mask, "Repeat a row of each prompt for its K rollouts.")
    kept = torch.where(answer_mask, at_least_float32(logprobs), 0)  # [N, T]
    return kept, answer_mask.sum(1, keepdim=True).clamp(min=1).to(kept.dtype)
