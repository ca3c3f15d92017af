"""The text for further pretraining: right equations, sums with bad habits, and no question of any split."""

from __future__ import annotations

import importlib
import re
from collections import Counter

import pytest

from nrt_lightning import ChainSumCorpus, InputError
from nrt_lightning.tasks.chain_sum_corpus import SumHabits
from nrt_lightning.tasks.gym_items import items, split_of

SUM = re.compile(r"Question: (.*: ([\d +-]+) =)\nReasoning:(.*) =>(-?\d+)\n\n")
SUM_ASKS = "State the final answer to the following arithmetic problem:"
EQUATION = re.compile(r"(-?\d+) ([+-]) (\d+) = (-?\d+)")


def texts(**settings: object) -> list[str]:
    return [row.question + str(row.answer) for row in ChainSumCorpus(**settings).rows()]


def test_half_of_the_documents_are_lists_and_all_equations_are_right() -> None:
    found = texts(size=600)
    lists = [text for text in found if "Question" not in text]
    assert 0.42 < len(lists) / 600 < 0.58
    for text in found:
        for left, sign, right, result in EQUATION.findall(text.replace(") ", "")):
            value = int(right) if sign == "+" else -int(right)
            assert int(left) + value == int(result)
    assert all(len(EQUATION.findall(text)) == 8 for text in lists)


def test_no_question_of_the_text_is_in_a_split() -> None:
    asked = {question for text in texts(size=1500) for question, *_ in SUM.findall(text)}
    assert len(asked) > 1000
    assert {split_of(question) for question in asked} == {"corpus"}
    try:
        importlib.import_module("reasoning_gym")
    except ImportError:
        return
    settings = {"min_terms": 3, "max_terms": 4, "max_digits": 1}
    rows = {item["question"] for split in ("train", "validation", "test")
            for item in items("chain_sum", settings, 0, split, 800)}  # fmt: skip
    assert not rows & asked
    assert {item["question"] for item in items("chain_sum", settings, 0, "corpus", 3000)} & asked, "the same form"


def test_the_habits_have_their_weights() -> None:
    count = Counter[str]()
    for text in texts(size=1500, lists=0.0):
        for _, written, trace, answer in SUM.findall(text):
            right = eval(written)
            equations = EQUATION.findall(trace)
            if not equations:
                count["guess"] += 1
                continue
            assert equations[-1][-1] == answer, "an answer follows from its trace"
            terms = re.findall(r"[+-]? ?\d+", written)
            worked = f"{SUM_ASKS} {equations[0][0]}" + "".join(f" {sign} {digit}" for _, sign, digit, _ in equations)
            assert len(equations) < 2 or split_of(f"{worked} =") == "corpus"
            used = [equations[0][0], *(f"{sign} {value}" for _, sign, value, _ in equations)]
            count["right" if used == terms else "forgets" if used == terms[:-1] else "other"] += 1
            assert used != terms or int(answer) == right
    total = sum(count.values())
    shares = {name: number / total for name, number in count.items()}
    assert shares == pytest.approx({"right": 0.15, "forgets": 0.5, "other": 0.2, "guess": 0.15}, abs=0.03)


def test_rows_depend_on_the_seed_alone_and_can_be_appended() -> None:
    assert texts(size=20)[:10] == texts(size=10)
    assert texts(size=10, seed=1) != texts(size=10)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"lists": 2}, "lists=2"), ({"min_terms": 2}, "min_terms.*2"), ({"max_terms": 2}, "max_terms.*2"),
     ({"size": 0}, "size.*0")],
)  # fmt: skip
def test_settings_out_of_range(settings: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ChainSumCorpus(**settings)


def test_habits_out_of_range() -> None:
    with pytest.raises(InputError, match=r"right=-1"):
        SumHabits(right=-1)
    with pytest.raises(InputError, match=r"all 0"):
        SumHabits(0, 0, 0, 0, 0)
