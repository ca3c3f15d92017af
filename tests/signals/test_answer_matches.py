"""Metrics of answers, held against the definitions of their benchmarks."""

from __future__ import annotations

import re
import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nrt_lightning import ChoiceLetter, NumericMatch, TextSignal, TokenF1
from nrt_lightning.signals import RolloutText
from nrt_lightning.structures import Row


def text(answer: str, written: str, *, emitted: bool = True, ended: bool = True) -> RolloutText:
    row = Row("1", [{"role": "user", "content": "?"}], answer)
    return RolloutText("?", answer, "", emitted, written, ended, row)


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("18", "18"),
        ("She makes $18 every day.", "18"),
        ("9 * 2 = 18\n#### 18", "18"),
        ("1,234,567", "1234567"),
        ("1, 2", "2"),  # a list
        ("$1,250.50.", "1250.5"),
        ("18.0", "18"),
        ("-3", "-3"),
        ("x=-3", "-3"),
        ("5-3", "3"),  # a difference
        ("minus 7 °C", "7"),
        (".5", "0.5"),
        ("-0", "0"),
        ("007", "7"),
        ("12345678901234567890123456789012345678", "12345678901234567890123456789012345678"),
        ("٣", "3"),  # digits of any script
        ("no number", None),
        ("", None),
    ],
)
def test_the_last_number_counts(written: str, key: str | None) -> None:
    assert NumericMatch().answer_key(written) == key


@given(st.integers(-(10**12), 10**12), st.sampled_from(["{:,}", "${:,}", "It is {}.", "{}.00", "1 + 1 = 2, so {}"]))
def test_a_number_equals_itself_however_it_is_written(number: int, how: str) -> None:
    if number < 0 and how.startswith("$"):
        return
    assert NumericMatch().read(text(str(number), how.format(number))) == 1
    assert NumericMatch().read(text(str(number + 1), how.format(number))) == 0


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("B", "B"), ("b", "B"), (" (b) ", "B"), ("B.", "B"), ("**C**", "C"), ("C) 12 m", "C"), ("(D) the moon", "D"),
        ("D: the moon", "D"), ("The answer is B.", "B"), ("the correct choice is (C)", "C"), ("Answer: A", "A"),
        ("(A) is wrong, so it is (C)", "C"), ("Not A; the answer is B", "B"), ("A man walks", None), ("I think", None),
        ("the answer is a dog", None), ("Paris", None), ("", None), ("The answer is B's", None),
    ],
)  # fmt: skip
def test_the_letter_that_is_chosen_counts(written: str, key: str | None) -> None:
    assert ChoiceLetter().answer_key(written) == key


def squad_f1(prediction: str, ground_truth: str) -> float:
    """The official script of SQuAD 1.1, `f1_score`, with 1 where both sides are empty as in that of SQuAD 2.0."""

    def normalize_answer(s: str) -> str:
        def remove_articles(text: str) -> str:
            return re.sub(r"\b(a|an|the)\b", " ", text)

        def white_space_fix(text: str) -> str:
            return " ".join(text.split())

        def remove_punc(text: str) -> str:
            exclude = set(string.punctuation)
            return "".join(ch for ch in text if ch not in exclude)

        return white_space_fix(remove_articles(remove_punc(s.lower())))

    prediction_tokens = normalize_answer(prediction).split()
    ground_truth_tokens = normalize_answer(ground_truth).split()
    if not prediction_tokens or not ground_truth_tokens:
        return float(prediction_tokens == ground_truth_tokens)
    num_same = sum((Counter(prediction_tokens) & Counter(ground_truth_tokens)).values())
    if num_same == 0:
        return 0
    precision, recall = num_same / len(prediction_tokens), num_same / len(ground_truth_tokens)
    return (2 * precision * recall) / (precision + recall)


@given(st.text("thea .,-An Ü"), st.text("thea .,-An Ü"))
def test_f1_is_that_of_squad(written: str, answer: str) -> None:
    assert TokenF1().read(text(answer, written)) == pytest.approx(squad_f1(written, answer))


@pytest.mark.parametrize("metric", [NumericMatch, ChoiceLetter, TokenF1])
def test_an_answer_after_a_forced_marker_counts_only_if_it_is_asked_for(metric: type[TextSignal]) -> None:
    assert metric().read(text("(A) 3", "(A) 3")) == 1
    assert metric().read(text("(A) 3", "(A) 3", emitted=False)) == 0
    assert metric(forced=True).read(text("(A) 3", "(A) 3", emitted=False)) == 1  # type: ignore[call-arg]


@pytest.mark.parametrize("metric", [NumericMatch(), ChoiceLetter()])
def test_an_answer_that_was_cut_is_wrong(metric: TextSignal) -> None:
    assert metric.read(text("(A) 3", "(A) 3", ended=False)) == 0


def test_nothing_equals_nothing_is_no_match() -> None:
    assert NumericMatch().read(text("none", "none")) == 0
    assert ChoiceLetter().read(text("none", "none")) == 0
