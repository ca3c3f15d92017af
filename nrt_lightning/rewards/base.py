"""Base class of the reward aggregators."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from nrt_lightning.functional import at_least_float32, check_same_shape
from nrt_lightning.structures import TraceReward


class RewardAggregator(ABC):
    """Computes the trace reward R = f(c_1..c_T) from the confidences c_i = pi(y*_i | x, z, y*_<i) in the answer tokens.

    It also computes the token weights `alpha_i c_i = df/dlog c_i`, since the gradient of E[R] contains
    `sum_i alpha_i c_i grad log pi(y*_i | x, z, y*_<i)` with `alpha_i = df/dc_i` (arXiv 2602.11549).

    An answer without tokens gets the lowest possible reward: 0, or minus infinity for log-probs. (The product over no
    tokens would be 1, the highest.) Advantage estimators exclude rewards that are not finite from their group.

    A subclass implements `__call__` and sets the class attributes that differ.
    """

    needs_baseline: ClassVar[bool] = False  # True if `baseline_logprobs` is required
    gives_logprobs: ClassVar[bool] = False  # True if R is the log-probability of the whole answer
    minimum: ClassVar[float] = 0.0  # the lowest possible reward, given to answers without tokens

    @property
    def name(self) -> str:
        """The name in logs, such as `geometric_mean`."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()

    @abstractmethod
    def __call__(
        self, answer_logprobs: Tensor, answer_mask: Tensor, baseline_logprobs: Tensor | None = None
    ) -> TraceReward:
        """Compute rewards and token weights.

        Args:
            answer_logprobs: `[N, T]` of the answer tokens after the trace, in nats.
            answer_mask: `[N, T]` bool; log-probs outside are ignored.
            baseline_logprobs: `[N, T]` of the same tokens after the empty trace.

        Returns:
            The trace rewards `[N]` and the token weights `[N, T]`, in float32 or float64.

        Raises:
            InputError: if shapes differ or a required baseline is missing.
        """


def answer_only(logprobs: Tensor, answer_mask: Tensor, name: str = "answer_logprobs") -> tuple[Tensor, Tensor]:
    """Set log-probs outside the answer to 0, and count the tokens of each answer.

    Args:
        logprobs: `[N, T]`.
        answer_mask: `[N, T]` bool.
        name: name of the log-probs, for the error message.

    Returns:
        The log-probs `[N, T]` in float32 or float64, and the lengths `[N, 1]` in the same type, at least 1.

    Raises:
        InputError: if the shapes differ.

    Example:
        >>> answer_only(torch.tensor([[-1.0, float("nan")]]), torch.tensor([[True, False]]))
        (tensor([[-1.,  0.]]), tensor([[1.]]))
    """
    check_same_shape(name, logprobs, "answer_mask", answer_mask, "Repeat the row of each prompt for its K rollouts.")
    kept = torch.where(answer_mask, at_least_float32(logprobs), 0)  # [N, T]
    return kept, answer_mask.sum(1, keepdim=True).clamp(min=1).to(kept.dtype)
