"""Signs, from vitals written by hand."""

from dataclasses import replace

import pytest

from nrt_lightning import (
    EmptyTraces,
    LostGain,
    LostMarker,
    SameAnswers,
    TemplateTraces,
    UnfinishedResponses,
    WorthlessCertainty,
)
from nrt_lightning.callbacks.collapse import Vitals
from nrt_lightning.callbacks.collapse.signs import default_signs

START = Vitals(step=0, gain=-1.6, answer_logprob=-3.0, dependence=0.4, trace_tokens=14.5, trace_entropy=0.48,
               distinct=0.96, marker_rate=0.84)  # fmt: skip
LEARNING = Vitals(30, 0.85, -0.9, 0.9, 13.0, 0.49, 0.96, 0.97)
SOLVED = Vitals(150, 1.45, -0.15, 1.0, 17.0, 0.01, 0.0, 1.0)  # nearly always the same trace for a question


def found(now, *past, signs=None):
    return [type(sign) for sign in signs or default_signs() if sign(now, list(past)) is not None]


def test_a_run_that_learns_and_solves_its_task_shows_no_sign():
    run = [START, replace(START, step=10, gain=-0.4), LEARNING, SOLVED, replace(SOLVED, gain=1.2), SOLVED]
    assert [found(now, *run[:index]) for index, now in enumerate(run)] == [[]] * 6


def test_a_policy_that_needs_no_trace_any_more_shows_no_sign():
    knows = replace(SOLVED, gain=0.02, answer_logprob=-0.02, dependence=0.9)
    assert found(knows, LEARNING, SOLVED) == []


@pytest.mark.parametrize(
    ("change", "sign"),
    [
        ({"trace_tokens": 0.4}, EmptyTraces),
        ({"dependence": 0.05}, TemplateTraces),
        ({"gain": 0.5, "answer_logprob": -0.9}, LostGain),  # partly, and answers have become less likely
        ({"gain": 0.1, "answer_logprob": -0.14, "distinct": 0.9, "trace_entropy": 0.5}, LostGain),  # wholly
        ({"marker_rate": 0.3}, LostMarker),
        ({"finished_rate": 0.4}, UnfinishedResponses),
        ({"answer_variety": 0.13}, SameAnswers),
    ],
)
def test_each_sign_is_seen_by_itself(change, sign):
    assert found(replace(SOLVED, **change), LEARNING, SOLVED) == [sign]


def test_certainty_is_a_sign_only_where_traces_are_worth_nothing():
    certain = {"trace_entropy": 0.001, "distinct": 0.0}
    assert found(replace(START, **certain)) == [WorthlessCertainty]
    assert found(replace(LEARNING, **certain)) == []


def test_part_of_the_gain_may_go_where_answers_stay_as_likely():
    assert found(replace(SOLVED, gain=0.5), LEARNING, SOLVED) == []


def test_thresholds_are_settings():
    assert found(START, signs=[EmptyTraces(min_tokens=20)]) == [EmptyTraces]
    assert found(START, signs=[TemplateTraces(min_dependence=0.5)]) == [TemplateTraces]
    assert found(LEARNING, SOLVED, signs=[LostGain(keep=0.7)]) == [LostGain]
