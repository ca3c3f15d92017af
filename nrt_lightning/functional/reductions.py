"""Ways to reduce per-token values of a batch to one number.

They differ in what a long sequence weighs. A term without tokens is 0 with a zero gradient under all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from nrt_lightning.functional.masking import masked_mean, masked_sum
from nrt_lightning.functional.validation import check_at_least


class Reduction(ABC):
    """From per-token values and their mask to a scalar."""

    @abstractmethod
    def __call__(self, values: Tensor, mask: Tensor) -> Tensor:
        """Reduce `values [N, C]` over the tokens of `mask [N, C]` (bool) to a scalar."""


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

    divisor: float = 512.0
    average: bool = True

    def __post_init__(self) -> None:
        check_at_least("divisor", self.divisor, 0, above=True)

    def __call__(self, values: Tensor, mask: Tensor) -> Tensor:
        """Reduce `values [N, C]` over the tokens of `mask [N, C]` (bool) to a scalar."""
        total = masked_sum(values, mask) / self.divisor
        return total / max(mask.shape[0], 1) if self.average else total


@dataclass(frozen=True)
class SequenceSum(Reduction):
    """Token sums averaged over the sequences that have tokens: `1/N+ sum_n sum_c v_nc` (`seq-mean-token-sum`).

    Example:
        >>> import torch
        >>> SequenceSum()(torch.ones(2, 3), torch.tensor([[True, True, True], [False, False, False]]))
        tensor(3.)
    """

    def __call__(self, values: Tensor, mask: Tensor) -> Tensor:
        """Reduce `values [N, C]` over the tokens of `mask [N, C]` (bool) to a scalar."""
        return masked_mean(masked_sum(values, mask, dim=1), mask.any(1))


@dataclass(frozen=True)
class SequenceMean(Reduction):
    """Token means averaged over the sequences that have tokens: `1/N+ sum_n 1/C_n sum_c v_nc` (`seq-mean-token-mean`).

    Example:
        >>> import torch
        >>> values = torch.tensor([[4.0, 0.0], [2.0, 9.0]])
        >>> SequenceMean()(values, torch.tensor([[True, True], [True, False]]))
        tensor(2.)
    """

    def __call__(self, values: Tensor, mask: Tensor) -> Tensor:
        """Reduce `values [N, C]` over the tokens of `mask [N, C]` (bool) to a scalar."""
        return masked_mean(masked_mean(values, mask, dim=1), mask.any(1))


@dataclass(frozen=True)
class TokenMean(Reduction):
    """Mean over all tokens of the batch: `sum_nc v_nc / tokens` (`token-mean`).

    Example:
        >>> import torch
        >>> values = torch.tensor([[4.0, 0.0], [2.0, 9.0]])
        >>> TokenMean()(values, torch.tensor([[True, True], [True, False]]))
        tensor(2.)
    """

    def __call__(self, values: Tensor, mask: Tensor) -> Tensor:
        """Reduce `values [N, C]` over the tokens of `mask [N, C]` (bool) to a scalar."""
        return masked_mean(values, mask)
