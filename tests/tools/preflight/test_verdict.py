"""Verdicts on figures written by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nrt_lightning.structures import Markup
from nrt_lightning.tools.preflight import Measures, Sample, Setup, report, verdict
from nrt_lightning.tools.preflight.measures import (
    Aggregation,
    Answers,
    Fraction,
    SignalFigures,
    interval,
    signal,
    useful_traces,
)
from nrt_lightning.tools.preflight.report import first_figures

SETUP = Setup(
    group_size=8, max_trace_tokens=32, suppress_eos=False, aggregator="a", aggregators=["a", "b"], signals=[],
    template="PlainTemplate()", examples=0, markup=Markup("<|start|>", (7,), True, end="<eos>", end_ids=(2,)),
    marker_is_new=True,
)  # fmt: skip
GOOD = Measures(
    rows=128, setup=SETUP, checked=True,
    useful=Fraction(0.15, 0.13, 0.17), useful_groups=0.7, specific_gain=0.5, specific_gain_z=9.0,
    without_trace=Answers(0.3, 0.01), after_trace=Answers(0.4, 0.16), after_borrowed_trace=Answers(0.2, None),
    after_best_trace=Answers(0.8, 0.71), after_best_borrowed_trace=Answers(0.3, None), trace_tokens=15.0,
    trace_entropy=0.5, distinct=0.95, ended_by_marker=0.8, ended_by_eos=0.1, cut=0.1, right_first_by_chance=0.2,
    aggregations={"a": Aggregation(0.3, 0.9, 0.0, 0.95, 0.9), "b": Aggregation(0.1, 0.9, 0.0, 0.5, 0.7)},
)  # fmt: skip
SIGNAL = SignalFigures(mean=0.5, spread=0.2, zero_variance=0.0, right_first=0.95, auroc_within=0.9, failed=0.0)


def test_a_good_base_needs_no_knob():
    found = verdict(GOOD)
    assert (found.can_start, found.knobs) == ("yes", [])


@pytest.mark.parametrize(
    ("useful", "can_start"),
    [
        (Fraction(0.013, 0.0074, 0.022), "yes"),
        (Fraction(0.001, 0.0002, 0.0049), "no"),
        (Fraction(0.005, 0.002, 0.011), "unclear"),
    ],
)
def test_about_one_trace_in_200_must_be_useful(useful, can_start):
    found = verdict(replace(GOOD, useful=useful, useful_groups=0.05))
    assert found.can_start == can_start
    assert any(knob.startswith("model.sampling.group_size") for knob in found.knobs)


def test_an_answer_that_is_right_by_chance_makes_no_base_ready():
    lucky = replace(GOOD, useful=Fraction(0.0013, 0.0002, 0.0074), useful_groups=0.01)
    assert verdict(lucky).can_start == "unclear"
    chance = verdict(replace(lucky, specific_gain_z=-0.5))
    assert chance.can_start == "no"
    assert "0.1 % of the traces are useful" in chance.reason
    assert "no more than traces of another question" in chance.reason
    enough = replace(lucky, useful=Fraction(0.013, 0.0074, 0.022), specific_gain_z=-0.5)
    assert verdict(enough).can_start == "yes", "useful traces are enough where there are some"


def test_free_text_is_judged_by_what_traces_tell_of_their_own_question():
    unchecked = replace(GOOD, checked=False, after_trace=Answers(0.4, 0.0), after_best_trace=Answers(0.8, 0.0))
    assert verdict(unchecked).can_start == "yes"
    nothing = verdict(replace(unchecked, specific_gain_z=0.3))
    assert nothing.can_start == "no"
    assert any(knob.startswith("model.answer_conditioned") for knob in nothing.knobs)
    assert not any(knob.startswith("model.answer_conditioned") for knob in verdict(unchecked).knobs)
    lucky = replace(GOOD, useful=Fraction(0.001, 0.0002, 0.0049), useful_groups=0.5)  # one answer matched by chance
    assert any("free text" in knob for knob in verdict(lucky).knobs)
    assert not any("free text" in knob for knob in verdict(replace(lucky, specific_gain_z=0.3)).knobs)


def test_a_base_that_knows_the_answers_has_nothing_to_learn():
    found = verdict(replace(GOOD, without_trace=Answers(0.99, 0.97), useful=Fraction(0.0, 0.0, 0.004)))
    assert found.can_start == "no"
    assert found.knobs == ["data.train: take harder questions"]


@pytest.mark.parametrize(
    ("change", "knob"),
    [
        ({"cut": 0.6}, "model.sampling.max_trace_tokens"),
        ({"ended_by_eos": 0.6}, "model.sampling.suppress_eos"),
        ({"distinct": 0.2}, "model.sampling.temperature"),
        ({"trace_tokens": 0.3}, "data.template: "),
        ({"setup": replace(SETUP, aggregator="b")}, "model.aggregator: a puts"),
        ({"aggregations": {"a": Aggregation(0.0, 0.1, 0.8, None, None)}}, "model.sampling: 80.0 %"),
        ({"signals": {"reward": SIGNAL, "format": replace(SIGNAL, failed=0.5)}}, "model.signals.signals.format: "),
        ({"signals": {"reward": replace(SIGNAL, zero_variance=0.8)}}, "model.sampling: 80.0 %"),
        ({"signals": {"reward": replace(SIGNAL, right_first=0.3)}}, "model.signals: a puts"),
    ],
)
def test_each_trouble_has_its_knob(change, knob):
    (knob_found,) = verdict(replace(GOOD, **change)).knobs
    assert knob_found.startswith(knob)


def names(found) -> list[str]:
    return [knob.partition(":")[0] for knob in found.knobs]


def test_a_marker_that_is_never_written_has_three_cures():
    found = verdict(replace(GOOD, ended_by_marker=0.001))
    assert names(found) == [
        "data.template.examples", "model.policy.marker", "model.loss.marker_coef and model.loss.marker_rows=all"
    ]  # fmt: skip
    assert "0.1 %" in found.knobs[0]
    assert "'<|start|>'" in found.knobs[1]
    assert "new token" in found.knobs[1]
    markup = Markup("\nAnswer:", (7, 8), False, " ")
    few = replace(GOOD, ended_by_marker=0.03, setup=replace(SETUP, markup=markup, marker_is_new=False, examples=2))
    assert names(verdict(few)) == ["model.policy.marker"]
    assert "new token" not in verdict(few).knobs[0]
    assert "'\\nAnswer:'" in found.knobs[1]
    suggestions = verdict(few).knobs[0].partition("such as")[2]
    assert "' =>'" in suggestions
    assert "Answer" not in suggestions, "the marker that is hardly written is no cure"


def test_answers_that_the_base_never_writes_after_the_marker():
    unknown = replace(GOOD, without_trace=Answers(0.002, 0.0), after_best_trace=Answers(0.003, 0.0))
    assert names(verdict(unknown)) == ["data.template.examples", "model.policy.marker"]
    assert "0.003" in verdict(unknown).knobs[1]


def test_a_no_names_worked_examples_unless_the_prompt_has_them():
    no = replace(GOOD, useful=Fraction(0.001, 0.0002, 0.004))
    assert names(verdict(no))[0] == "data.template.examples"
    assert "data.template.examples" not in names(verdict(replace(no, setup=replace(SETUP, examples=2))))


def test_the_report_names_marker_template_and_signals():
    text = report(replace(GOOD, signals={"reward": SIGNAL, "format": SIGNAL}), verdict(GOOD), "model")
    assert "marker '<|start|>' (token, id 7), answer ends with '<eos>' (token, id 2); the marker is new to" in text
    assert "prompts by PlainTemplate()" in text
    assert "reward *" in text
    assert "a *" not in text, "with signals no aggregation is the configured reward"
    assert "Signal" not in report(GOOD, verdict(GOOD), "model")


def test_first_figures_call_no_trace_useful_where_no_answer_is_right():
    """The comparison with traces of other questions needs more of them than a batch has."""
    assert "15.0 % of the traces are useful" in first_figures(GOOD, ", about 0:01:00 left")
    assert first_figures(GOOD, ", about 0:01:00 left").endswith("about 0:01:00 left")
    assert "useful" not in first_figures(replace(GOOD, checked=False), "")


def test_figures_of_a_signal_leave_out_what_failed():
    right = torch.tensor([[True, False], [True, False], [True, False]])
    nan = float("nan")
    found = signal(right, torch.tensor([[1.0, 0.0], [0.5, 0.5], [nan, 0.25]]))
    assert found.mean == pytest.approx(2.25 / 5)
    assert found.failed == pytest.approx(1 / 6)
    assert found.zero_variance == pytest.approx(2 / 3)
    assert found.right_first == pytest.approx((1 + 0.5) / 2)
    nothing = signal(right, torch.full((3, 2), nan))
    assert (nothing.failed, nothing.zero_variance, nothing.right_first) == (1.0, 1.0, None)


def sample(logprobs, borrowed, right) -> Sample:
    rows = logprobs.shape[0]
    zeros, none = torch.zeros(rows), torch.zeros(rows, dtype=torch.bool)
    return Sample(logprobs, borrowed, zeros - 2, right, none, logprobs, right, right, zeros, zeros, logprobs, zeros,
                  logprobs, logprobs.unsqueeze(2), right.long(), logprobs)  # fmt: skip


def test_useful_traces_lead_to_right_answers_that_would_not_be_right_without():
    right = torch.zeros(4, 8, dtype=torch.bool)
    right[0, :3] = right[1, 0] = True
    drawn = sample(torch.zeros(4, 8), torch.zeros(4, 8), right)
    assert useful_traces(drawn)[0] == interval(4, 32)
    assert useful_traces(drawn)[1] == 0.5
    drawn.direct_right = torch.tensor([True, False, False, False])
    assert useful_traces(drawn)[0] == interval(1, 32)


def test_where_nothing_is_right_useful_traces_beat_those_of_other_questions():
    noise = torch.randn(256, 8, generator=torch.Generator().manual_seed(0)) - 2
    other = torch.randn(256, 8, generator=torch.Generator().manual_seed(1)) - 2
    none = torch.zeros(256, 8, dtype=torch.bool)
    assert useful_traces(sample(noise, other, none))[0].value < 0.01
    better = noise.clone()
    better[:100, 0] = 2.0  # 4.9 % of all
    assert useful_traces(sample(better, other, none))[0].value == pytest.approx(100 / 2048, abs=0.01)


def test_traces_that_are_no_better_than_those_of_other_questions_seldom_seem_so():
    """The limit that they must exceed is estimated from as few traces, and the interval is wide enough for it."""
    none = torch.zeros(64, 8, dtype=torch.bool)
    noise = [torch.randn(2, 64, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(400)]
    wrong = [useful_traces(sample(own, other, none))[0].low > 0 for own, other in noise]
    assert sum(wrong) <= 20, "of 400, at 95 %"
