"""The verdict on a run in words: does it learn, is it healthy, what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nrt_lightning.tools.report.history import History

GOOD, WATCH, BAD, OPEN = "good", "watch", "bad", "open"
END = 0.1  # fraction of a curve that its end is the mean of
RISE = 0.05  # of a rate: about two standard errors of a rate near 0.1 or 0.9 over 128 questions
FACTOR = 1.5  # of a mean probability, which rates do not show before answers are right


@dataclass(frozen=True)
class Finding:
    """One line of a verdict."""

    level: str  # good, watch, bad or open
    text: str  # what was seen, with figures
    action: str = ""  # what to do
    why: str = ""  # the threshold and its reason


def verdict(history: History) -> tuple[Finding, list[Finding]]:
    """The headline of a run, and what it follows from.

    Args:
        history: scalars of the run.
    """
    learning = learns(history)
    health = [finding for check in CHECKS if (finding := check(history)) is not None]
    troubled = [finding for finding in health if finding.level in (BAD, WATCH)]
    bad = any(finding.level == BAD for finding in troubled)
    healthy = "It is not healthy" if bad else f"{len(troubled)} figures to watch" if len(troubled) > 1 else (
        "One figure to watch" if troubled else "No sign of trouble" if health else "It has no traces that could fail"
    )  # fmt: skip
    words = {GOOD: "It learns.", BAD: "It does not learn.", WATCH: "It learns slowly, if at all.",
             OPEN: "Too early to say whether it learns."}  # fmt: skip
    level = BAD if BAD in (learning.level, *(f.level for f in health)) else (
        learning.level if learning.level != GOOD else WATCH if troubled else GOOD
    )  # fmt: skip
    first = troubled[0] if troubled else learning
    action = learning.action if learning.level in (BAD, OPEN) and learning.action else first.action or learning.action
    return Finding(level, f"{words[learning.level]} {healthy}.", action), [learning, *health]


def learns(history: History) -> Finding:
    """Whether the policy answers better than at the start."""
    why = (
        f"A rate that rises by {RISE:g} counts: smaller changes are within the noise of a hundred questions. "
        f"Confidence moves earlier than exact match, so that a factor of {FACTOR:g} counts, too."
    )
    rates = history.curve("val/exact_match")
    sure = history.curve("val/confidence")
    if len(rates) < 2:
        return by_reward(history)
    first, last, best = rates[0][1], rates[-1][1], max(value for _, value in rates)
    said = f"Exact match on validation questions went from {first:.3f} to {last:.3f} in {rates[-1][0]} steps"
    if last - first >= RISE:
        done = "Training can go on: the last step was the best." if last >= best and last < 0.95 else ""
        return Finding(GOOD, f"{said}.", done, why)
    if best >= 0.95 and best - last < RISE:
        return Finding(GOOD, f"{said}; it was high from the start.", "Try harder questions.", why)
    if len(sure) >= 2 and sure[-1][1] > FACTOR * sure[0][1] and sure[-1][1] > 1e-4:
        more = f"confidence in the reference answer rose from {sure[0][1]:.3g} to {sure[-1][1]:.3g}"
        return Finding(WATCH, f"{said}, but {more}.", "Train longer: confidence comes before exact match.", why)
    if rates[-1][0] < 20:
        return Finding(OPEN, f"{said}.", "Train for more steps.", why)
    action = (
        "Run `nrt-lightning preflight` with this configuration: it says whether the base can start at all. "
        "If it can, raise the learning rate or the group size."
    )
    return Finding(BAD, f"{said}.", action, why)


def by_reward(history: History) -> Finding:
    """The same without a second validation: by the reward or the loss alone, which prove less."""
    for name, title, sign in (("train/gain", "The gain", 1), ("train/reward", "The reward", 1),
                              ("train/loss", "The loss", -1)):  # fmt: skip
        values = [value for _, value in history.curve(name)]
        if len(values) >= 20:
            tenth = max(1, len(values) // 10)
            start, end = sum(values[:tenth]) / tenth, sum(values[-tenth:]) / tenth
            spread = (sum((v - start) ** 2 for v in values[:tenth]) / tenth) ** 0.5
            better = sign * (end - start) > spread
            return Finding(
                WATCH if better else OPEN,
                f"{title} went from {start:.3g} to {end:.3g}. Fewer than two validations were logged, so that "
                "nothing is known of the answers.",
                "Give validation rows (`data.val` or `data.val_rows`) and a `trainer.val_check_interval`.",
                "A reward can rise while answers do not get better.",
            )
    action = "Train for at least 20 steps with two validations."
    return Finding(OPEN, "Too little was logged to tell whether it learns.", action)


def kept(history: History) -> Finding | None:
    """Whether the end is as good as the best."""
    rates = history.curve("val/exact_match")
    if len(rates) < 3:
        return None
    step, best = max(rates, key=lambda point: point[1])
    if best - rates[-1][1] > RISE:
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
