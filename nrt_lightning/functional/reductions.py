"""Reductions of per-token values to a scalar.

They differ in the weight of long sequences. All give 0 with a zero gradient for an empty mask. Each is a weighted sum
whose weights depend only on the mask, so that a batch can be reduced in parts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from nrt_lightning.functional.masking import masked_sum
from nrt_lightning.functional.validation import check_at_least, check_mask


class Reduction(ABC):
    """Weighted sum of per-token values over a mask."""

    counts_tokens: ClassVar[bool] = True  # True if the weight of a sequence depends on the masks of the others

    @abstractmethod
    def weights(self, mask: Tensor, dtype: torch.dtype) -> Tensor:
        """The weight of each token of `mask`. `[N, C]`"""

    def __call__(self, values: Tensor, mask: Tensor, weights: Tensor | None = None) -> Tensor:
        """Reduce values to a scalar.

        Args:
            values: `[N, C]`; values outside the mask are ignored.
            mask: `[N, C]` bool.
            weights: `[N, C]` weights of these tokens in a larger batch; None if these sequences are the whole batch.

        Raises:
            InputError: if the shapes differ or the mask is not bool.
        """
        check_mask(mask, values)
        return masked_sum(values * (self.weights(mask, values.dtype) if weights is None else weights), mask)

    def count(self, mask: Tensor) -> Tensor:
        """The part of the divisor that depends on the batch, a scalar; 1 if none does."""
        return torch.ones((), device=mask.device)

    def balance(self, masks: Sequence[Tensor], mean: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Factors that make the mean over processes equal to the reduction of one large batch.

        Args:
            masks: M masks of this process, `[N, C]` bool each.
            mean: averages a tensor over all processes.

        Returns:
            `[M]`: `count / mean(count)` of each mask, to multiply the reduced values with; and `[M]`: `mean(count)`.

        Example:
            >>> mask = torch.tensor([[True, True, True], [True, False, False]])
            >>> TokenMean().balance([mask], mean=lambda counts: torch.full_like(counts, 8.0))  # 4 tokens, 8 on average
            (tensor([0.5000]), tensor([8.]))
        """
        counts = torch.stack([self.count(mask) for mask in masks]).float()
        sizes = mean(counts)
        return counts / sizes.clamp(min=1e-9), sizes


@dataclass(frozen=True)
class SequenceSumConstant(Reduction):
    """Token sums of each sequence divided by a constant, averaged over all sequences: `1/N sum_n sum_c v_nc / divisor`.

    All tokens have the same weight, in sequences of any length. The paper's authors call it `seq-mean-token-sum-norm`
    (arXiv 2602.11549; Dr. GRPO, arXiv 2503.20783). Their code divides by the constant alone, so that the gradient grows
    with the size of the micro-batch; `average=False` reproduces it.

    Args:
        divisor: the constant, in tokens; 512 in the authors' script.
        average: divide by the number of sequences too, as that of one large batch. False averages over micro-batches
            and processes instead.

    Raises:
        InputError: if `divisor` is not above 0.

    Example:
        >>> import torch
        >>> values, mask = torch.ones(2, 4), torch.tensor([[True, True, True, True], [True, True, False, False]])
        >>> SequenceSumConstant(divisor=10)(values, mask)
        tensor(0.3000)
        >>> SequenceSumConstant(divisor=10, average=False)(values, mask)
        tensor(0.6000)
    """

    counts_tokens: ClassVar[bool] = False
    divisor: float = 512.0
    average: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        check_at_least("divisor", self.divisor, 0, above=True)

    def weights(self, mask: Tensor, dtype: torch.dtype) -> Tensor:
        """`1 / divisor` on every token, over the number of sequences if averaged."""
        count = mask.shape[0] if self.average else 1
        return mask.to(dtype) / (self.divisor * max(count, 1))

    def count(self, mask: Tensor) -> Tensor:
        """The number of sequences if averaged, with and without tokens."""
        return torch.tensor(mask.shape[0] if self.average else 1, device=mask.device)


@dataclass(frozen=True)
class SequenceSum(Reduction):
    """Token sums averaged over the N+ sequences that have tokens: `1/N+ sum_n sum_c v_nc` (`seq-mean-token-sum`).

    Example:
        >>> import torch
        >>> SequenceSum()(torch.ones(2, 3), torch.tensor([[True, True, True], [False, False, False]]))
        tensor(3.)
    """

    def weights(self, mask: Tensor, dtype: torch.dtype) -> Tensor:
        """`1 / N+` on every token."""
        return mask.to(dtype) / at_least_one(self.count(mask))

    def count(self, mask: Tensor) -> Tensor:
        """N+, the number of sequences that have tokens."""
        return mask.any(dim=1).sum()


@dataclass(frozen=True)
class SequenceMean(Reduction):
    """Token means averaged over the sequences that have tokens: `1/N+ sum_n 1/C_n sum_c v_nc` (`seq-mean-token-mean`).

    Example:
        >>> import torch
        >>> values = torch.tensor([[4.0, 0.0], [2.0, 9.0]])
        >>> SequenceMean()(values, torch.tensor([[True, True], [True, False]]))
        tensor(2.)
    """

    def weights(self, mask: Tensor, dtype: torch.dtype) -> Tensor:
        """`1 / (N+ C_n)` on the tokens of sequence n."""
        return mask.to(dtype) / at_least_one(mask.sum(dim=1, keepdim=True)) / at_least_one(self.count(mask))

    def count(self, mask: Tensor) -> Tensor:
        """N+, the number of sequences that have tokens."""
        return mask.any(dim=1).sum()


@dataclass(frozen=True)
class TokenMean(Reduction):
    """Mean over all tokens of the batch: `sum_nc v_nc / tokens` (`token-mean`).

    Example:
        >>> import torch
        >>> values = torch.tensor([[4.0, 0.0], [2.0, 9.0]])
        >>> TokenMean()(values, torch.tensor([[True, True], [True, False]]))
        tensor(2.)
    """

    def weights(self, mask: Tensor, dtype: torch.dtype) -> Tensor:
        """`1 / tokens` on every token."""
        return mask.to(dtype) / at_least_one(self.count(mask))

    def count(self, mask: Tensor) -> Tensor:
        """The number of tokens."""
        return mask.sum()


def at_least_one(count: Tensor) -> Tensor:
    """The count, at least 1, to divide by."""
    return count.clamp(min=1)
