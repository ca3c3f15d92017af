"""The gain of a trace by difficulty of the answer token."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from typing_extensions import override

DECILES = 10


class GainByDifficulty(Metric):
    """Mean confidence in an answer token with and without the trace, by decile of the token's difficulty.

    Tokens are ranked by their confidence without a trace: decile 1 holds the hardest tenth, decile 10 the easiest. The
    gain is the quotient of the two means (arXiv 2602.11549 plots it by difficulty). Fewer than ten tokens give nothing.

    Example:
        >>> gains = GainByDifficulty()
        >>> without = torch.arange(1, 21).view(1, 20) / 20
        >>> gains.update(without.sqrt().log(), without.log(), torch.ones(1, 20, dtype=torch.bool))
        >>> {name: round(value.item(), 2) for name, value in gains.compute().items()}["gain_decile_1"]
        3.6
    """

    full_state_update = False
    confidences: list[Tensor]
    baselines: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("confidences", default=[], dist_reduce_fx="cat")
        self.add_state("baselines", default=[], dist_reduce_fx="cat")

    @override
    def update(self, logprobs: Tensor, baseline_logprobs: Tensor, mask: Tensor) -> None:
        """Add the tokens of answers.

        Args:
            logprobs: log-probs of the answers after traces, [B, T].
            baseline_logprobs: log-probs of the answers after the empty trace, [B, T].
            mask: True for tokens that count, [B, T].
        """
        self.confidences.append(logprobs[mask].exp())
        self.baselines.append(baseline_logprobs[mask].exp())

    @override
    def compute(self) -> dict[str, Tensor]:
        """`confidence_decile_D`, `baseline_decile_D` and their quotient `gain_decile_D`, for D from 1 to 10."""
        if not self.confidences:
            return {}
        confidences, baselines = dim_zero_cat(self.confidences), dim_zero_cat(self.baselines)  # [tokens]
        if len(baselines) < DECILES:
            return {}
        found = {}
        for decile, rows in enumerate(torch.tensor_split(baselines.argsort(stable=True), DECILES), start=1):
            with_trace, without = confidences[rows].mean(), baselines[rows].mean()
            found[f"confidence_decile_{decile}"], found[f"baseline_decile_{decile}"] = with_trace, without
            found[f"gain_decile_{decile}"] = with_trace / without.clamp(min=1e-12)
        return found
