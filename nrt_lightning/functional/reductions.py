"""Ways to reduce per-token values of a batch to one number.

They differ in what a long sequence weighs. A term without tokens is 0 with a zero gradient under all of them. Each is a
weighted sum whose weights depend on the mask alone, so a batch may be reduced a part at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nrt_lightning.functional.masking import masked_sum
from nrt_lightning.functional.validation import check_at_least


class Reduction(ABC):
    """From per-token values and their mask to a scalar."""

    counts_tokens: ClassVar[bool] = True  # whether what one sequence weighs depends on the mask of the others

    @abstractmethod
    def weights(self, mask: Tensor, dtype: torch.dtype) -> Tensor:
        """What each token of `mask [N, C]` (bool) weighs in the sum, [N, C] or wider by broadcasting."""

    def __call__(self, values: Tensor, mask: Tensor, weights: Tensor | None = None) -> Tensor:
        """Reduce `values [N, C]` over the tokens of `mask [N, C]` (bool) to a scalar.

        Args:
            values: `[N, C]`; anything outside the mask.
            mask: `[N, C]` bool.
            weights: `[N, C]` of a larger batch that these sequences are a part of; None: they are all.
        """
        return masked_sum(values * (self.weights(mask, values.dtype) if weights is None else weights), mask)

    def count(self, mask: Tensor) -> Tensor:
        """What the sum is divided by, where that depends on the mask; otherwise 1."""
        return torch.ones((), device=mask.device)

    def balance(self, masks: Sequence[Tensor], mean: Callable[[Tensor], Tensor]) -> Tensor:
        """Factors for the values of one process, under which their mean over processes is that of one large batch.

        A process with few tokens counts for little: `count / mean(count)` for each of M masks. [M]

        Args:
            masks: `[N, C]` bool each, the tokens of this process.
            mean: of a tensor over all processes.

        Example:
            >>> mask = torch.tensor([[True, True, True], [True, False, False]])
            >>> TokenMean().balance([mask], mean=lambda counts: torch.full_like(counts, 8.0))  # the others have more
            tensor([0.5000])
        """
        if not self.counts_tokens:
            return torch.ones(len(masks), device=masks[0].device)
        counts = torch.stack([self.count(mask) for mask in masks]).float()
        return counts / mean(counts).clamp(min=1e-9)


@dataclass(frozen=True)
class SequenceSumConstant(Reduction):
    """Token sums of each sequence divided by a constant, averaged over all sequences: `1/N sum_n sum_c v_nc / divisor`.

    A token weighs the same in short and in long sequences, and the same whatever else is in the batch: this is what
    the paper's authors name `seq-mean-token-sum-norm` (arXiv 2602.11549; Dr. GRPO, arXiv 2503.20783). Their code
    divides the total by the constant alone, so that the size of its gradient depends on how many sequences a
    micro-batch holds; `average=False` reproduces it.

    Args:
        divisor: the constant, in tokens; the authors' script asks for 512.
        average: divide by the number of sequences too, so that gradients accumulated over micro-batches of any size
            agree with those of one large batch.

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
    average: bool = True

    def __post_init__(self) -> None:
        check_at_least("divisor", self.divisor, 0, above=True)

    def weights(self, mask: Tensor, dtype: torch.dtype) -> Tensor:
        """The same for all."""
        count = mask.shape[0] if self.average else 1
        return mask.to(dtype) / (self.divisor * max(count, 1))


@dataclass(frozen=True)
class SequenceSum(Reduction):
    """Token sums averaged over the sequences that have tokens: `1/N+ sum_n sum_c v_nc` (`seq-mean-token-sum`).

    Example:
        >>> import torch
        >>> SequenceSum()(torch.ones(2, 3), torch.tensor([[True, True, True], [False, False, False]]))
        tensor(3.)
    """

    def weights(self, mask: Tensor, dtype: torch.dtype) -> Tensor:
        """One over the number of sequences that have tokens."""
        return mask.to(dtype) / at_least_one(self.count(mask))

    def count(self, mask: Tensor) -> Tensor:
        """Sequences that have tokens."""
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
        """One over the tokens of the sequence and over the number of sequences that have tokens."""
        return mask.to(dtype) / at_least_one(mask.sum(dim=1, keepdim=True)) / at_least_one(self.count(mask))

    def count(self, mask: Tensor) -> Tensor:
        """Sequences that have tokens."""
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
        """One over the number of tokens."""
        return mask.to(dtype) / at_least_one(self.count(mask))

    def count(self, mask: Tensor) -> Tensor:
        """Tokens."""
        return mask.sum()


def at_least_one(count: Tensor) -> Tensor:
    """A count that can be divided by."""
    return count.clamp(min=1)
