"""The verdict on a run in words: does it learn, is it healthy, what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nrt_lightning.tools.report.history import History
from nrt_lightning.tools.report.learning import BAD, GOOD, OPEN, RISE, WATCH, Finding, learns
from nrt_lightning.tools.report.lines import number

END = 0.1  # fraction of a curve that its end is the mean of


def verdict(history: History, facts: dict[str, Any] | None = None) -> tuple[Finding, list[Finding]]:
    """The headline of a run, and what it follows from.

    Args:
        history: scalars of the run.
        facts: of its `run.json`.
    """
    last = history.steps()
    ending, part = ended(facts or {}, last)
    words, learning = learns(history, early=ending is not None and part < 0.5)
    health = [finding for check in CHECKS if (finding := check(history)) is not None]
    troubled = [finding for finding in health if finding.level in (BAD, WATCH)]
    bad = any(finding.level == BAD for finding in troubled)
    traces = any(name.startswith("rollout/") for name in history.series)
    healthy = ["It is not healthy."] if bad else [f"{len(troubled)} figures to watch."] if len(troubled) > 1 else (
        ["One figure to watch."] if troubled else ["No sign of trouble."] if traces else []
    )  # fmt: skip
    level = BAD if BAD in (learning.level, *(f.level for f in health)) else (
        learning.level if learning.level != GOOD else WATCH if troubled else GOOD
    )  # fmt: skip
    first = troubled[0] if troubled else learning
    action = learning.action if learning.level in (BAD, OPEN) and learning.action else first.action or learning.action
    text = " ".join([words, *healthy, *(["It has not ended."] if ending is not None else [])])
    return Finding(level, text, action), [learning, *([ending] if ending is not None else []), *health]


def ended(facts: dict[str, Any], last: int) -> tuple[Finding | None, float]:
    """Whether the run took fewer steps than it was to take, and the part of them that it took.

    Args:
        facts: with `steps` and `ended`, which older files lack.
        last: step that was logged last.
    """
    planned, end = number(facts.get("steps")), facts.get("ended")
    if "ended" not in facts:
        return None, 1.0
    done = number(end.get("step")) if isinstance(end, dict) else None
    part = (last if done is None else done) / planned if planned else 1.0
    if done is not None and (planned is None or done >= planned):
        return None, part
    of = f" of {planned:,.0f}" if planned else ""
    if done is not None:
        return Finding(OPEN, f"It was stopped at step {done:,.0f}{of}.", "`--ckpt_path=auto` goes on."), part
    text = f"The log ends at step {last:,}{of}: the run is still going on, or was killed."
    return Finding(OPEN, text, "`--ckpt_path=auto` goes on after a kill."), part


def kept(history: History) -> Finding | None:
    """Whether the end is as good as the best."""
    rates = history.curve("val/exact_match")
    if len(rates) < 3:
        return None
    step, best = max(rates, key=lambda point: point[1])
    fell = best - rates[-1][1]
    if RISE < fell < (best - rates[0][1]) / 2:  # more of it is the first line of the verdict
        return Finding(
            WATCH,
            f"Exact match fell from its best, {best:.3f} at step {step}, to {rates[-1][1]:.3f}.",
            "Use checkpoints/best.ckpt, and lower the learning rate or train for fewer steps.",
            f"A fall by more than {RISE:g} is beyond the noise of a hundred questions.",
        )
    return None


def traces_help(history: History) -> Finding | None:
    """Whether a trace makes the answer likelier than no trace."""
    gain = history.last("train/gain", END)
    if gain is None:
        return None
    why = "The gain is the trace reward minus the reward of the empty trace. Above 0, traces help."
    if gain > 0:
        return Finding(GOOD, f"Traces help: their gain is {gain:+.2f} at the end.", "", why)
    return Finding(
        BAD if len(history.curve("train/gain")) >= 50 else WATCH,
        f"Traces do not help: their gain is {gain:+.3g} at the end.",
        "See whether traces hold anything useful (Samples), and whether the base can go on from a trace to the answer "
        "(`nrt-lightning preflight`).",
        why,
    )


def marker(history: History) -> Finding | None:
    """Whether the policy ends its traces by itself."""
    rate = history.last("rollout/marker_rate", END)
    if rate is None:
        return None
    why = "Below 90 %, a deployed policy often goes on thinking until it is cut; below half, it does so mostly."
    said = f"{rate:.0%} of the traces end with the marker."
    if rate >= 0.9:
        return Finding(GOOD, said, "", why)
    action = "Raise `model.loss.marker_coef`, set `marker_rows: all`, or allow longer traces (`max_trace_tokens`)."
    return Finding(WATCH if rate >= 0.5 else BAD, said, action, why)


def cut(history: History) -> Finding | None:
    """Whether traces have the room that they need."""
    share = history.last("rollout/truncated_share", END)
    if share is None or share <= 0.2:
        return None
    why = "Cut traces lose their end, which leads to the answer. Above one in five this biases the reward."
    action = "Raise `model.sampling.max_trace_tokens`, or penalize length (`overlong`)."
    return Finding(BAD if share > 0.5 else WATCH, f"{share:.0%} of the traces are cut at the limit.", action, why)


def length(history: History) -> Finding | None:
    """Whether there are traces at all."""
    tokens, first = history.last("rollout/trace_tokens", END), history.curve("rollout/trace_tokens")[:1]
    if tokens is None:
        return None
    why = "Below one token there is no reasoning. A loss of four fifths shows that traces are on their way out."
    if tokens < 1:
        action = "Use an earlier checkpoint, lower the learning rate and the marker's weight (`marker_coef`)."
        return Finding(BAD, f"Traces are empty: {tokens:.2g} tokens on average.", action, why)
    if first and tokens < 0.2 * first[0][1]:
        action = "Read the samples: short traces are fine if they still hold the work, as on easy questions."
        return Finding(WATCH, f"Traces shrank from {first[0][1]:.0f} to {tokens:.0f} tokens.", action, why)
    return None


def alike(history: History) -> Finding | None:
    """Whether the rewards of a group still differ."""
    share = history.last("train/zero_variance_groups", END)
    if share is None or share <= 0.5:
        return None
    solved = (history.last("val/exact_match") or 0.0) > 0.9
    action = "Give harder questions: these are solved." if solved else (
        "Raise `group_size` or the temperature, or give other questions."
    )  # fmt: skip
    why = "A group whose rewards are equal teaches nothing. Above half, most of the sampling is for nothing."
    return Finding(WATCH, f"In {share:.0%} of the groups all traces have the same reward.", action, why)


def gradient(history: History) -> Finding | None:
    """Whether updates are of one size."""
    values = sorted(value for _, value in history.curve("train/grad_norm"))
    if len(values) < 20:
        return None
    median, largest = values[len(values) // 2], values[-1]
    if largest <= 20 * max(median, 1e-9):
        return None
    why = "A gradient twenty times the median is a jump that clipping bounds but does not direct."
    action = "Lower the learning rate or `trainer.gradient_clip_val`; look at the samples of that step."
    return Finding(WATCH, f"The gradient norm jumped to {largest:.3g}; its median is {median:.3g}.", action, why)


def collapsed(history: History) -> Finding | None:
    """Whether the collapse detector saw something."""
    dependence = history.last("collapse/dependence")
    if dependence is None or dependence >= 0.1:
        return None
    why = "0.1 is the threshold of `TemplateTraces`: below it, traces could be exchanged between questions."
    action = "Use an earlier checkpoint and a lower learning rate (docs/diagnostics.md)."
    return Finding(BAD, f"Traces hardly depend on their questions: {dependence:.2f} of 1.", action, why)


CHECKS: tuple[Callable[[History], Finding | None], ...] = (
    kept, traces_help, marker, cut, length, alike, gradient, collapsed
)  # fmt: skip
