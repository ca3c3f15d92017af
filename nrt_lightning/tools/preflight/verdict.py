"""Whether NRT can start from here, and which knobs to turn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from nrt_lightning.tools.preflight.measures import Measures, percent

NEEDED = 1 / 200  # useful traces: 0.5 % were too few and 1.3 % enough at K = 8 (docs/how_it_works.md)
SPECIFIC = 2.0  # standard errors by which a group's best trace must beat the best of another row's


@dataclass
class Verdict:
    """The answer, with its reason and what to change."""

    can_start: Literal["yes", "no", "unclear"]
    reason: str
    knobs: list[str]


def judge(measures: Measures) -> Verdict:
    """From figures to words."""
    can_start, reason = answer(measures)
    return Verdict(
        can_start, reason, [*base_knobs(measures, can_start), *trace_knobs(measures), *reward_knobs(measures)]
    )


def answer(measures: Measures) -> tuple[Literal["yes", "no", "unclear"], str]:
    """Whether NRT can start, and why."""
    useful = measures.useful
    bounds = f"{percent(useful.low)} to {percent(useful.high)} at 95 %"
    share = f"{percent(useful.value)} of the traces are useful ({bounds})"
    if measures.without_trace.right is not None and measures.without_trace.right > 0.9:
        return "no", "There is nothing to learn: the base answers these questions without any trace."
    if not measures.checked and measures.specific_gain_z < SPECIFIC:
        return "no", (
            "No answer is right after any trace, and traces help the answer to their own question no more than traces "
            "written for another question do: either none says anything useful, or the base cannot read it."
        )
    how = "the answer after them is right, and is not without" if measures.checked else (
        "they raise the answer's confidence beyond what traces of other questions do"
    )  # fmt: skip
    if useful.low > NEEDED:
        return "yes", f"{share}: {how}. About {percent(NEEDED)} are needed."
    if useful.high < NEEDED:
        return "no", f"Only {share}; below about {percent(NEEDED)} nothing is learned."
    return "unclear", f"{share}; about {percent(NEEDED)} are needed. More --rows tell more."


def base_knobs(measures: Measures, can_start: str) -> list[str]:
    """What to do about useful traces and answers."""
    knobs = []
    without, after = measures.without_trace.right, measures.after_trace.right
    if without is not None and without > 0.9:
        return ["data: take harder questions"]
    if can_start == "no":
        knobs.append(
            "policy.model: take a base that works such questions out now and then, or fine-tune this one on a few "
            "hundred worked traces first"
        )
    if measures.checked and measures.useful.value and measures.useful_groups < 0.2:
        enough = math.ceil(math.log(0.8) / math.log(1 - measures.useful.value))  # 20 % of such groups hold one
        knobs.append(
            f"sampling.group_size: only {percent(measures.useful_groups)} of the groups hold a useful trace; with "
            f"{enough} traces 20 % would"
        )
    if after is not None and after > 0.9:
        knobs.append("data: take harder questions; nearly every trace leads to the right answer already")
    if can_start != "yes" and measures.specific_gain_z > SPECIFIC:
        knobs.append(
            "data: exact match finds few right answers, yet traces help their own question most; if answers "
            "are free text, which exact match cannot judge, go by the confidences"
        )
    return knobs


def trace_knobs(measures: Measures) -> list[str]:
    """What to do about length, ends and variety of the traces."""
    knobs = []
    if measures.cut > 0.3:
        knobs.append(
            f"sampling.max_trace_tokens: {percent(measures.cut)} of the traces are cut at "
            f"{measures.max_trace_tokens} tokens"
        )
    if measures.ended_by_eos > 0.3:
        knobs.append(
            f"sampling.suppress_eos=true with loss.marker_rows=all: {percent(measures.ended_by_eos)} of the traces end "
            "with the end token instead of the marker"
        )
    if measures.ended_by_marker < 0.01:
        knobs.append(
            "loss.marker_coef and loss.marker_rows=all: the marker is hardly ever written, so that it must be learned "
            "from its cross-entropy alone; if the tokenizer knew it before, try a policy.marker that is new, which "
            "starts as a copy of the end token"
        )
    if measures.trace_tokens < 1:
        knobs.append("data.template: most traces are empty; ask for reasoning in the prompt")
    if measures.distinct < 0.5:
        knobs.append(f"sampling.temperature: only {percent(measures.distinct)} of a group's traces are distinct")
    return knobs


def reward_knobs(measures: Measures) -> list[str]:
    """What to do about the aggregation."""
    knobs, own = [], measures.aggregations[measures.aggregator]
    if own.zero_variance > 0.5:
        knobs.append(f"sampling: {percent(own.zero_variance)} of the groups have equal rewards and teach nothing")
    firsts = {name: a.right_first for name, a in measures.aggregations.items() if a.right_first is not None}
    best = max(firsts, key=lambda name: firsts[name], default=None)
    if best is not None and firsts[best] > firsts[measures.aggregator] + 0.1:
        knobs.append(
            f"aggregator: {best} puts a right trace first in {percent(firsts[best])} of the groups, "
            f"{measures.aggregator} in {percent(firsts[measures.aggregator])}"
        )
    return knobs
