"""pass@k, majority votes and means, held against counting."""

from __future__ import annotations

from itertools import combinations
from statistics import fmean

import pytest

from nrt_lightning import ExactMatch, NumericMatch, TextSignal
from nrt_lightning.evaluation import AnsweredQuestion, SampledAnswer, pass_at_k, summarize
from nrt_lightning.evaluation.summary import majority
from nrt_lightning.signals import RolloutText
from nrt_lightning.structures import Row


@pytest.mark.parametrize("count", [1, 2, 5, 7])
def test_pass_at_k_is_the_mean_over_all_subsets(count: int) -> None:
    for right in range(count + 1):
        marks = [True] * right + [False] * (count - right)
        for k in range(1, count + 1):
            subsets = [any(subset) for subset in combinations(marks, k)]
            assert pass_at_k(count, right, k) == pytest.approx(fmean(subsets))


def answered(answers: list[tuple[str, bool, bool]], reference: str = "2", metric: TextSignal | None = None):
    """A question with answers, each with whether its marker was emitted and whether it ended."""
    metric, row = metric or ExactMatch(), Row("1", [{"role": "user", "content": "?"}], reference)
    samples = []
    for answer, emitted, ended in answers:
        value = metric.read(RolloutText("?", reference, "", emitted, answer, ended, row))
        samples.append(SampledAnswer("", answer, emitted, ended, 3, {"m": value}))
    return AnsweredQuestion("1", "?", reference, samples)


@pytest.mark.parametrize(
    ("answers", "value"),
    [
        ([("2", True, True), ("2", True, True), ("3", True, True)], 1.0),
        ([("3", True, True), ("2", True, True), ("3", True, True)], 0.0),
        ([("3", True, True), ("2", True, True)], 0.5),  # a tie is split
        ([("2", False, True), ("2", False, True), ("3", True, True)], 0.0),  # forced answers have no vote
        ([("2", True, False), ("2", True, False), ("3", True, True)], 0.0),  # nor have those that were cut
        ([("2", False, True)], 0.0),
    ],
)
def test_the_majority_decides(answers: list[tuple[str, bool, bool]], value: float) -> None:
    assert majority(answered(answers), "m", ExactMatch()) == value


def test_numbers_vote_by_their_value() -> None:
    metric = NumericMatch()
    question = answered([("3", True, True), ("2.0", True, True), ("so $2", True, True)], metric=metric)
    assert majority(question, "m", metric) == 1
    assert majority(question, "m", ExactMatch()) == pytest.approx(2 / 3), "as texts all three differ"


def test_figures_are_means_over_questions_with_their_standard_error() -> None:
    questions = [answered([("2", True, True)] * 2), answered([("2", True, True), ("3", False, True)])]
    found = summarize(questions, {"m": ExactMatch()})
    assert found["questions"] == found["samples"] == 2
    assert found["metrics"]["m"] == {
        "mean": 0.75, "stderr": pytest.approx(0.25), "failed": 0, "majority@2": 1.0, "pass@1": 0.75, "pass@2": 1.0
    }  # fmt: skip
    assert found["marker_rate"] == 0.75
    assert "confidence" not in found


def test_a_metric_that_failed_is_counted_and_left_out() -> None:
    question = answered([("2", True, True), ("2", True, True)])
    question.samples[0].values["m"] = None
    figures = summarize([question], {"m": ExactMatch()})["metrics"]["m"]
    assert (figures["mean"], figures["failed"], figures["pass@1"]) == (1.0, 1, 0.5)
