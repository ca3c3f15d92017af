"""Built-in metrics of evaluation."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from typing_extensions import override

from nrt_lightning.errors import nearest


class ReasoningMetrics(Metric):
    """Means over questions of the values in `names`, and the relative confidence gain.

    States are sums and counts, so several processes give the values of one process with all questions.

    `relative_confidence_gain` is `confidence / confidence_without_trace - 1` of the two means, where `confidence` is
    the probability of the reference answer (the product over its tokens) after the policy's greedy trace, and
    `confidence_without_trace` its probability after the empty trace.

    Example:
        >>> metrics = ReasoningMetrics()
        >>> metrics.update(confidence=torch.tensor([0.2, 0.6]), confidence_without_trace=torch.tensor([0.1, 0.3]))
        >>> {name: round(value.item(), 3) for name, value in metrics.compute().items()}
        {'confidence': 0.4, 'confidence_without_trace': 0.2, 'relative_confidence_gain': 1.0}
    """

    full_state_update = False
    total: Tensor  # [names]
    count: Tensor  # [names]
    names = (
        "exact_match",  # of the policy's answer after an emitted marker
        "exact_match_forced",  # of the policy's answer after a marker, emitted or forced
        "exact_match_without_trace",  # of the policy's answer after the empty trace
        "checked_match",  # the answer after an emitted marker holds the pieces that the row checks
        "checked_match_forced",  # the answer after a marker, emitted or forced, holds them
        "confidence",
        "confidence_without_trace",
        "marker_rate",  # fraction of traces that end with the marker
        "trace_tokens",
    )

    def __init__(self) -> None:
        super().__init__()
        zeros = torch.zeros(len(self.names), dtype=torch.float64)
        self.add_state("total", default=zeros, dist_reduce_fx="sum")
        self.add_state("count", default=zeros.clone(), dist_reduce_fx="sum")

    @override
    def update(self, counted: Tensor | None = None, **values: Tensor) -> None:
        """Add questions.

        Args:
            counted: False leaves a question out, [B]; None counts all.
            values: by name, one number for each question, [B].

        Raises:
            ValueError: a name is unknown.
        """
        for name, value in values.items():
            if name not in self.names:
                raise ValueError(f"{name!r} is not a metric.{nearest(name, self.names)}")
            index = self.names.index(name)
            value = value if counted is None else value[counted]
            self.total[index] += value.double().sum()
            self.count[index] += value.numel()

    @override
    def compute(self) -> dict[str, Tensor]:
        """The means by name, of the names that were updated."""
        means = dict(zip(self.names, (self.total / self.count).float(), strict=True))
        found = {name: means[name] for name, count in zip(self.names, self.count, strict=True) if count > 0}
        if "confidence" in found and "confidence_without_trace" in found:
            gain = found["confidence"] / found["confidence_without_trace"].clamp(min=1e-12) - 1
            found["relative_confidence_gain"] = gain
        return found
