"""Whether a run learns, in words: the first line of its verdict."""

from __future__ import annotations

from dataclasses import dataclass

from nrt_lightning.tools.report.history import History

GOOD, WATCH, BAD, OPEN = "good", "watch", "bad", "open"
RISE = 0.05  # of a rate: about two standard errors of a rate near 0.1 or 0.9 over 128 questions
SLIGHT = 0.02  # of a rate: seen over hundreds of questions, and of no use by itself
SOLVED, HALF = 0.9, 0.5  # rates of right answers
FACTOR = 1.5  # of a mean probability, which rates do not show before answers are right
WHY = (
    f"A rate that rises by {RISE:g} counts: smaller changes are within the noise of a hundred questions. A task counts "
    f"as solved at {SOLVED:g}. Confidence moves earlier than exact match, so that a factor of {FACTOR:g} counts, too."
)
GO_ON = "Train longer: it was still rising."
NOT_ENOUGH = (
    "Compare with another method or more data. The loss on these rows may go on falling while new questions are not "
    "answered."
)
CHECK_BASE = (
    "Run `nrt-lightning preflight` with this configuration: it says whether the base can start at all. If it can, "
    "raise the learning rate or the group size."
)
USE_BEST = "Use checkpoints/best.ckpt, and lower the learning rate or train for fewer steps."


@dataclass(frozen=True)
class Finding:
    """One line of a verdict."""

    level: str  # good, watch, bad or open
    text: str  # what was seen, with figures
    action: str = ""  # what to do
    why: str = ""  # the threshold and its reason


def learns(history: History, *, early: bool = False) -> tuple[str, Finding]:
    """Whether the policy answers better than at the start: in a few words, and with its figures.

    Args:
        history: scalars of the run.
        early: the run has not ended, and most of its steps are missing.
    """
    rates = history.curve("val/exact_match")
    if len(rates) < 2:
        return by_reward(history)
    first, last, best = rates[0][1], rates[-1][1], max(value for _, value in rates)
    said = f"Exact match on validation questions went from {first:.3f} to {last:.3f} in {rates[-1][0]:,} steps"
    if (tested := history.last("test/exact_match")) is not None:
        said += f", and is {tested:.3f} on test questions"
    words, level, action = by_rate(rates)
    if level != BAD or best - first >= RISE:
        return words, Finding(level, f"{said}.", action, WHY)
    sure = history.curve("val/confidence")
    if len(sure) >= 2 and sure[-1][1] > FACTOR * sure[0][1] and sure[-1][1] > 1e-4 and last < RISE:
        more = f"confidence in the reference answer rose from {sure[0][1]:.3g} to {sure[-1][1]:.3g}"
        action = "Train longer: confidence comes before exact match."
        return "It learns slowly, if at all.", Finding(WATCH, f"{said}, but {more}.", action, WHY)
    if rates[-1][0] < 20 or early:
        return "Too early to say whether it learns.", Finding(OPEN, f"{said}.", "Train for more steps.", WHY)
    return words, Finding(level, f"{said}.", action, WHY)


def by_rate(rates: list[tuple[int, float]]) -> tuple[str, str, str]:
    """A few words, the level, and what to do, from the rates of right answers over the steps."""
    first, last, best = rates[0][1], rates[-1][1], max(value for _, value in rates)
    rise, wrong = last - first, f"{1 - last:.0%} of the answers are wrong"
    later = [value for step, value in rates if step >= rates[-1][0] * 2 / 3]
    rising = last >= best - SLIGHT and (len(rates) == 2 or last - later[0] >= RISE / 2)
    if best - first >= RISE and best - last >= max(RISE, (best - first) / 2):
        return "It learned, and lost it again.", BAD, USE_BEST
    if last >= SOLVED:
        easy = "Try harder questions." if first >= SOLVED else ""
        return ("It knew this from the start." if easy else "It has learned this."), GOOD, easy
    if rise >= RISE and last >= HALF:
        return "It learns.", GOOD, GO_ON if rising else ""
    if rise >= RISE and rising:
        return f"It learns, but {wrong} so far.", WATCH, GO_ON
    if rise >= 4 * RISE:
        return f"It learns a part: {wrong}.", WATCH, NOT_ENOUGH
    if rise >= SLIGHT:
        return f"It barely learns: {wrong}.", BAD, NOT_ENOUGH
    if rise <= -RISE:
        return "It gets worse.", BAD, USE_BEST
    if last >= HALF:
        return (
            f"It hardly changes: {wrong}.",
            WATCH,
            "See the reward and the samples; lower or raise the learning rate.",
        )
    return "It does not learn.", BAD, CHECK_BASE


def by_reward(history: History) -> tuple[str, Finding]:
    """The same without a second validation: by the reward or the loss alone, which prove less."""
    once = history.curve("val/exact_match")
    known = f"The only validation found an exact match of {once[0][1]:.3f}." if once else (
        "No validation was logged, so that nothing is known of the answers."
    )  # fmt: skip
    for name, title, sign in (("train/gain", "The gain", 1), ("train/reward", "The reward", 1),
                              ("train/loss", "The loss", -1)):  # fmt: skip
        values = [value for _, value in history.curve(name)]
        if len(values) >= 20:
            tenth = max(1, len(values) // 10)
            start, end = sum(values[:tenth]) / tenth, sum(values[-tenth:]) / tenth
            spread = (sum((v - start) ** 2 for v in values[:tenth]) / tenth) ** 0.5
            better = sign * (end - start) > spread
            found = Finding(
                WATCH if better else OPEN,
                f"{title} went from {start:.3g} to {end:.3g}. {known}",
                "Give validation rows (`data.val` or `data.val_rows`) and a `trainer.val_check_interval`.",
                "A reward can rise while answers do not get better.",
            )
            return "Its answers were not measured over training.", found
    action = "Train for at least 20 steps with two validations."
    text = "Too little was logged to tell whether it learns." + (f" {known}" if once else "")
    return "Too early to say whether it learns.", Finding(OPEN, text, action)
