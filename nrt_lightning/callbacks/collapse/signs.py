"""Signs of collapse in the measurements of a policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from typing_extensions import override

from nrt_lightning.callbacks.collapse.vitals import Vitals


class CollapseSign(ABC):
    """Base class of signs of collapse."""

    @abstractmethod
    def __call__(self, now: Vitals, past: list[Vitals]) -> str | None:
        """Describe the problem; None if there is none.

        Args:
            now: the current measurement.
            past: all previous measurements, oldest first.
        """


@dataclass(frozen=True)
class EmptyTraces(CollapseSign):
    """Traces are empty.

    Args:
        min_tokens: mean length below which this is a sign.
    """

    min_tokens: float = 1.0

    @override
    def __call__(self, now: Vitals, past: list[Vitals]) -> str | None:
        if now.trace_tokens < self.min_tokens:
            return f"traces are empty: {now.trace_tokens:.2f} tokens on average, below {self.min_tokens:g}"
        return None


@dataclass(frozen=True)
class TemplateTraces(CollapseSign):
    """Traces do not depend on their prompt: template collapse, which entropy does not show (arXiv 2604.06268).

    Args:
        min_dependence: dependence of traces on their prompts, 0 to 1, below which this is a sign.
    """

    min_dependence: float = 0.1

    @override
    def __call__(self, now: Vitals, past: list[Vitals]) -> str | None:
        if now.dependence < self.min_dependence:
            return f"traces hardly depend on their prompts: {now.dependence:.2f}, below {self.min_dependence:g}"
        return None


@dataclass(frozen=True)
class LostGain(CollapseSign):
    """Traces have lost their gain.

    A policy that learns to answer without a trace loses gain, too, which is not collapse. A partial loss therefore
    counts only if answers have also become less likely. A total loss counts unless answers are certain.

    Args:
        keep: fraction of the best gain so far below which the loss is partial.
        keep_any: fraction of the best gain so far below which the loss is total.
        min_gain: nats per answer token; no sign if the best gain was smaller, or if answers are certain to within it.
    """

    keep: float = 0.5
    keep_any: float = 0.1
    min_gain: float = 0.1

    @override
    def __call__(self, now: Vitals, past: list[Vitals]) -> str | None:
        best = max(past, key=lambda vitals: vitals.gain, default=now)
        if best.gain < self.min_gain or now.answer_logprob > -self.min_gain:
            return None
        partly = now.gain < self.keep * best.gain and now.answer_logprob < best.answer_logprob
        if partly or now.gain < self.keep_any * best.gain:
            return f"traces have lost their gain: {now.gain:.2f} nats, after {best.gain:.2f} at step {best.step}"
        return None


@dataclass(frozen=True)
class WorthlessCertainty(CollapseSign):
    """The policy always writes the same trace for a question, and this trace has no gain.

    Low entropy alone is not a sign: if only one trace is right, success has low entropy, too. A small gain is not a
    sign if answers are certain.

    Args:
        max_entropy: nats per token below which traces are always the same.
        max_distinct: distinctness of the traces of a group, 0 to 1, below which they are always the same.
        max_gain: nats per answer token below which traces have no gain; answers are certain to within it.
    """

    max_entropy: float = 0.02
    max_distinct: float = 0.1
    max_gain: float = 0.1

    @override
    def __call__(self, now: Vitals, past: list[Vitals]) -> str | None:
        certain = now.trace_entropy < self.max_entropy or now.distinct < self.max_distinct
        if certain and now.gain < self.max_gain and now.answer_logprob < -self.max_gain:
            return (
                f"traces are always the same and have no gain: entropy {now.trace_entropy:.3f} nats, "
                f"{now.distinct:.0%} distinct, gain {now.gain:.2f} nats"
            )
        return None


def fallen_from(rate: float, past: list[float], keep: float, least: float) -> float | None:
    """The best rate of the past, if that was at least `least` and the rate is below the fraction `keep` of it.

    >>> fallen_from(0.2, [0.9, 0.8], keep=0.5, least=0.5), fallen_from(0.6, [0.9, 0.8], keep=0.5, least=0.5)
    (0.9, None)
    """
    best = max(past, default=0.0)
    return best if best >= least and rate < keep * best else None


@dataclass(frozen=True)
class LostMarker(CollapseSign):
    """The policy no longer ends its traces with the marker.

    Args:
        keep: fraction of the best marker rate so far below which this is a sign.
        min_rate: no sign if the best marker rate was lower.
    """

    keep: float = 0.5
    min_rate: float = 0.5

    @override
    def __call__(self, now: Vitals, past: list[Vitals]) -> str | None:
        best = fallen_from(now.marker_rate, [vitals.marker_rate for vitals in past], self.keep, self.min_rate)
        if best is not None:
            return f"traces no longer end with the marker: {now.marker_rate:.0%}, after {best:.0%}"
        return None


@dataclass(frozen=True)
class UnfinishedResponses(CollapseSign):
    """The policy no longer finishes its responses, where these are trained.

    Args:
        keep: fraction of the best rate so far of finished responses below which this is a sign.
        min_rate: no sign if the best rate was lower.
    """

    keep: float = 0.5
    min_rate: float = 0.1

    @override
    def __call__(self, now: Vitals, past: list[Vitals]) -> str | None:
        best = fallen_from(now.finished_rate, [vitals.finished_rate for vitals in past], self.keep, self.min_rate)
        if best is not None:
            return f"responses are no longer finished: {now.finished_rate:.0%}, after {best:.0%}"
        return None


@dataclass(frozen=True)
class SameAnswers(CollapseSign):
    """The policy writes the same answer to different questions, where its answers are trained.

    Args:
        min_variety: different answers, divided by different reference answers, below which this is a sign.
    """

    min_variety: float = 0.25

    @override
    def __call__(self, now: Vitals, past: list[Vitals]) -> str | None:
        if now.answer_variety < self.min_variety:
            return f"answers to different questions are the same: variety {now.answer_variety:.2f}"
        return None


def default_signs() -> list[CollapseSign]:
    """One sign of each class."""
    traces: list[CollapseSign] = [EmptyTraces(), TemplateTraces(), LostGain(), WorthlessCertainty(), LostMarker()]
    return [*traces, UnfinishedResponses(), SameAnswers()]
