"""Signs that a policy is collapsing, read off its vitals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from nrt_lightning.callbacks.collapse.vitals import Vitals


class CollapseSign(ABC):
    """Something that goes wrong when reasoning collapses."""

    @abstractmethod
    def __call__(self, now: Vitals, past: list[Vitals]) -> str | None:
        """What is wrong, or None.

        Args:
            now: this look's vitals.
            past: those of all looks before it, oldest first.
        """


@dataclass(frozen=True)
class EmptyTraces(CollapseSign):
    """Traces end before they have begun.

    Args:
        min_tokens: mean length below which they have.
    """

    min_tokens: float = 1.0

    def __call__(self, now: Vitals, past: list[Vitals]) -> str | None:
        """See `CollapseSign`."""
        if now.trace_tokens < self.min_tokens:
            return f"traces are empty: {now.trace_tokens:.2f} tokens on average (below {self.min_tokens:g})"
        return None


@dataclass(frozen=True)
class TemplateTraces(CollapseSign):
    """Traces do not depend on what was asked: template collapse, which entropy does not show (arXiv 2604.06268).

    Args:
        min_dependence: of traces on their prompts, 0 to 1, below which they are a template.
    """

    min_dependence: float = 0.1

    def __call__(self, now: Vitals, past: list[Vitals]) -> str | None:
        """See `CollapseSign`."""
        if now.dependence < self.min_dependence:
            return f"traces are a template: they tell {now.dependence:.0%} of what could be told of their prompt"
        return None


@dataclass(frozen=True)
class LostGain(CollapseSign):
    """Traces were worth something and no longer are.

    A part of the gain may go because the policy comes to answer as well without a trace. That is no collapse: the part
    counts only if answers have become less likely too. All of it counts, unless answers are certain by now.

    Args:
        keep: share of the best gain so far below which a part is lost.
        keep_any: share below which all of it is lost.
        min_gain: nats an answer token that the best gain must have had, and that answers must lack of certainty.
    """

    keep: float = 0.5
    keep_any: float = 0.1
    min_gain: float = 0.1

    def __call__(self, now: Vitals, past: list[Vitals]) -> str | None:
        """See `CollapseSign`."""
        best = max(past, key=lambda vitals: vitals.gain, default=now)
        if best.gain < self.min_gain or now.answer_logprob > -self.min_gain:
            return None
        partly = now.gain < self.keep * best.gain and now.answer_logprob < best.answer_logprob
        if partly or now.gain < self.keep_any * best.gain:
            return (
                f"traces have lost their worth: they add {now.gain:.2f} nats to an answer token, "
                f"at step {best.step} they added {best.gain:.2f}"
            )
        return None


@dataclass(frozen=True)
class WorthlessCertainty(CollapseSign):
    """The policy always writes the same trace for a question, and that trace is worth nothing.

    Low entropy alone is no sign: where one trace is right, success looks the same. Nor is a small gain where nothing is
    left to be gained.

    Args:
        max_entropy: nats a token below which traces are always the same.
        max_distinct: share of distinct traces in a group, 0 to 1, below which they are, too.
        max_gain: nats an answer token below which traces are worth nothing, if the answer lacks as much of certainty.
    """

    max_entropy: float = 0.02
    max_distinct: float = 0.1
    max_gain: float = 0.1

    def __call__(self, now: Vitals, past: list[Vitals]) -> str | None:
        """See `CollapseSign`."""
        certain = now.trace_entropy < self.max_entropy or now.distinct < self.max_distinct
        if certain and now.gain < self.max_gain and now.answer_logprob < -self.max_gain:
            return (
                f"traces are always the same and worth nothing: entropy {now.trace_entropy:.3f} nats, "
                f"{now.distinct:.0%} distinct, gain {now.gain:.2f} nats a token"
            )
        return None


@dataclass(frozen=True)
class LostMarker(CollapseSign):
    """The policy ended its traces by itself and no longer does.

    Args:
        keep: share of the best marker rate so far below which it is lost.
        min_rate: that the best must have reached.
    """

    keep: float = 0.5
    min_rate: float = 0.5

    def __call__(self, now: Vitals, past: list[Vitals]) -> str | None:
        """See `CollapseSign`."""
        best = max((vitals.marker_rate for vitals in past), default=0.0)
        if best >= self.min_rate and now.marker_rate < self.keep * best:
            return f"traces no longer end: {now.marker_rate:.0%} write the marker, {best:.0%} did"
        return None


def default_signs() -> list[CollapseSign]:
    """One of each."""
    return [EmptyTraces(), TemplateTraces(), LostGain(), WorthlessCertainty(), LostMarker()]
