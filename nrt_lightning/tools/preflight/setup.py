"""The settings that a preflight is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nrt_lightning.rewards import RewardAggregator
from nrt_lightning.structures import Markup
from nrt_lightning.training.method import Method


@dataclass
class Setup:
    """What was looked at."""

    group_size: int
    max_trace_tokens: int
    suppress_eos: bool
    aggregator: str  # the configured one
    aggregators: list[str]
    signals: list[str]  # the configured ones
    template: str  # that made the prompts; empty if it is unknown
    examples: int  # worked examples in it
    markup: Markup  # what is between trace and answer, and what ends the answer
    marker_is_new: bool  # True if the base does not know it

    @classmethod
    def of(cls, method: Method, aggregators: Sequence[RewardAggregator], template: Any) -> Setup:
        """The setup of a method, with the template of its data."""
        sampling, policy = method.sampling, method.policy
        return cls(
            group_size=sampling.group_size,
            max_trace_tokens=sampling.max_trace_tokens,
            suppress_eos=sampling.suppress_eos,
            aggregator=method.aggregator.name,
            aggregators=[aggregator.name for aggregator in aggregators],
            signals=[] if method.signals is None else list(method.signals.signals),
            template="" if template is None else str(template),
            examples=len(getattr(template, "examples", None) or ()),
            markup=policy.markup,
            marker_is_new=policy.marker_is_new,
        )
