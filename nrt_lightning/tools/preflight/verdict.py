"""The verdict of a preflight: whether NRT can start, and which settings to change."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from nrt_lightning.tools.preflight.measures import Measures, percent

FEW = 2  # worked examples; two sufficed for an instruct model of 135 million weights
RARE = 0.05  # fraction of traces that end with the marker, below which most of them are cut before an answer
UNKNOWN = 0.05  # confidence in an answer token below which the base does not know what follows the marker
NEEDED = 1 / 200  # fraction of useful traces: 0.5 % were too few and 1.3 % enough at K = 8 (docs/how_it_works.md)
ENDED = 0.3  # confidence in the end of a right answer below which the reward is about the end more than the answer
KNOWN = ("\nAnswer:", " =>", "\n####")  # texts that many bases write before an answer
SPECIFIC = 2.0  # standard errors by which the best trace of a group must exceed the best of another row

UNSPECIFIC = "traces help the answer to their question no more than traces of another question do"


@dataclass
class Verdict:
    """The verdict with its reason and the settings to change."""

    can_start: Literal["yes", "no", "unclear"]
    reason: str
    knobs: list[str]


def verdict(measures: Measures) -> Verdict:
    """The verdict on a preflight's figures."""
    can_start, reason = answer(measures)
    return Verdict(
        can_start,
        reason,
        [
            *prompt_knobs(measures, can_start),
            *base_knobs(measures, can_start),
            *trace_knobs(measures),
            *reward_knobs(measures),
        ],
    )


def answer(measures: Measures) -> tuple[Literal["yes", "no", "unclear"], str]:
    """Tell whether NRT can start, and why."""
    useful = measures.useful
    bounds = f"{percent(useful.low)} to {percent(useful.high)} at 95 %"
    found = f"{percent(useful.value)} of the traces are useful ({bounds})"
    if measures.without_trace.right is not None and measures.without_trace.right > 0.9:
        return "no", "There is nothing to learn: the base answers these questions without a trace."
    if measures.specific_gain_z < SPECIFIC:
        if not measures.checked:
            return "no", (
                f"No answer is right after any trace, and {UNSPECIFIC}: either they contain nothing useful, or the "
                "base cannot use it."
            )
        if useful.value < NEEDED:  # some answers are right by chance
            return "no", f"Only {found}, and {UNSPECIFIC}. Below about {percent(NEEDED)} nothing is learned."
    how = "the answer after them is right, and is not without" if measures.checked else (
        "they raise the answer's confidence beyond what traces of other questions do"
    )  # fmt: skip
    if useful.low > NEEDED:
        return "yes", f"{found}: {how}. About {percent(NEEDED)} are needed."
    if useful.high < NEEDED:
        return "no", f"Only {found}; below about {percent(NEEDED)} nothing is learned."
    return "unclear", f"{found}; about {percent(NEEDED)} are needed. More --rows narrow the interval."


def prompt_knobs(measures: Measures, can_start: str) -> list[str]:
    """Settings to change for prompts and a marker that the base understands."""
    knobs, setup = [], measures.setup
    if measures.without_trace.right is not None and measures.without_trace.right > 0.9:
        return []
    rare = measures.ended_by_marker < RARE
    lost = max(measures.without_trace.confidence, measures.after_best_trace.confidence) < UNKNOWN
    trouble = []
    if rare:
        trouble.append(f"{percent(measures.ended_by_marker)} of the traces end with the marker {setup.markup.marker!r}")
    if lost:
        trouble.append(
            f"an answer token after {setup.markup.marker!r} has a confidence of "
            f"{measures.after_best_trace.confidence:.2g} even after the best trace"
        )
    if (trouble or can_start == "no") and setup.examples < FEW:
        why = " and ".join(trouble) or "the base may not know what is asked"
        knobs.append(
            f"data.template.examples: {why}; {FEW} worked examples (question, trace, answer) in the prompt show the "
            "base how to reason, to end a trace and to answer"
        )
    if trouble:
        new = "a new token means nothing to the base" if setup.marker_is_new else "the base may know another one better"
        others = " or ".join(repr(marker) for marker in KNOWN if marker != setup.markup.marker)
        knobs.append(
            f"model.policy.marker: {' and '.join(trouble)}; {new}, so try a text that it writes by itself after such "
            f"prompts, such as {others}"
        )
    if measures.end is not None and measures.end.confidence < ENDED:
        knobs.append(
            f"model.policy.answer_end: after right answers the end {setup.markup.end!r} has a confidence of "
            f"{measures.end.confidence:.2g}, which lowers the rewards of all traces; the base writes "
            f"{measures.end.text!r} there, so set that if it ends an answer"
        )
    if measures.trace_tokens < 1:
        knobs.append("data.template: most traces are empty; ask for reasoning in the prompt")
    return knobs


def base_knobs(measures: Measures, can_start: str) -> list[str]:
    """Settings to change for more useful traces and right answers."""
    knobs = []
    without, after = measures.without_trace.right, measures.after_trace.right
    if without is not None and without > 0.9:
        return ["data.train: take harder questions"]
    if can_start == "no":
        knobs.append(
            "model.policy.model: take a base that sometimes solves such questions step by step, or fine-tune this one "
            "on a few hundred worked traces first"
        )
        knobs.append(
            "model.answer_conditioned=AnswerConditioned: a base that can write the steps of an answer that it is told "
            "may learn from traces that see the answer; watch train/conditioned_reward and train/own_reward"
        )
    if measures.checked and measures.useful.value and measures.useful_groups < 0.2:
        enough = math.ceil(math.log(0.8) / math.log(1 - measures.useful.value))  # 20 % of such groups have one
        knobs.append(
            f"model.sampling.group_size: only {percent(measures.useful_groups)} of the groups have a useful trace; "
            f"with {enough} traces, 20 % would"
        )
    if after is not None and after > 0.9:
        knobs.append("data.train: take harder questions; almost every trace leads to the right answer")
    if can_start != "yes" and measures.specific_gain_z > SPECIFIC:
        knobs.append(
            "data.train: exact match finds few right answers, but traces help their own question most; if answers are "
            "free text, for which exact match is too strict, look at the confidences instead"
        )
    return knobs


def trace_knobs(measures: Measures) -> list[str]:
    """Settings to change for the length, endings and variety of the traces."""
    knobs = []
    if measures.cut > 0.3:
        knobs.append(
            f"model.sampling.max_trace_tokens: {percent(measures.cut)} of the traces are cut at "
            f"{measures.setup.max_trace_tokens} tokens"
        )
    if measures.ended_by_eos > 0.3:
        knobs.append(
            f"model.sampling.suppress_eos=true with model.loss.marker_rows=all: {percent(measures.ended_by_eos)} of "
            "the traces end with the end token instead of the marker"
        )
    if measures.ended_by_marker < RARE / 5:
        knobs.append(
            "model.loss.marker_coef and model.loss.marker_rows=all: the marker is almost never sampled, so without "
            "other prompts only its cross-entropy can teach it"
        )
    if measures.distinct < 0.5:
        knobs.append(
            f"model.sampling.temperature: only {percent(measures.distinct)} of a group's traces are distinct; above 0, "
            "log-probs of traces are trained at the same temperature"
        )
    return knobs


def reward_knobs(measures: Measures) -> list[str]:
    """Settings to change for the reward."""
    knobs, own = [], measures.setup.aggregator
    current = measures.signals["reward"] if measures.signals else measures.aggregations[own]
    if current.zero_variance > 0.5:
        equal = percent(current.zero_variance)
        knobs.append(f"model.sampling: {equal} of the groups have equal rewards, from which nothing is learned")
    for name, figures in measures.signals.items():
        if figures.failed > 0.1 and name != "reward":
            knobs.append(f"model.signals.signals.{name}: it failed for {percent(figures.failed)} of the traces")
    firsts = {name: a.right_first for name, a in measures.aggregations.items() if a.right_first is not None}
    best = max(firsts, key=lambda name: firsts[name], default=None)
    if best is not None and current.right_first is not None and firsts[best] > current.right_first + 0.1:
        what, mine = ("model.signals", "the signals") if measures.signals else ("model.aggregator", own)
        knobs.append(
            f"{what}: {best} puts a right trace first in {percent(firsts[best])} of the groups, {mine} in "
            f"{percent(current.right_first)}"
        )
    return knobs
