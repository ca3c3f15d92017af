"""Rows of reasoning-gym: splits that share no question, the library's scorer, and one-line errors."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import random
import subprocess
import sys

import numpy
import pytest

from nrt_lightning import InputError, QADataModule, ReasoningGymScore, ReasoningGymSource, RolloutText
from nrt_lightning.structures import Row
from nrt_lightning.tasks import ReasoningGymRow, gym_items
from nrt_lightning.tasks.gym_source import check_task, harmless, known_tasks

try:
    importlib.import_module("reasoning_gym")
except ImportError as error:
    pytest.skip(f"reasoning-gym or a requirement of it is not installed ({error})", allow_module_level=True)

SUMS = {"min_terms": 3, "max_terms": 4, "max_digits": 1}
UNSCORED = {"boxnet", "graph_color", "rush_hour"}  # their items have a scorer and no answer
TASKS = sorted(set(known_tasks("")) - {"composite"})


def questions(**settings: object) -> list[str]:
    found = {"task": "chain_sum", "settings": SUMS, "seed": 0, "split": "train", "size": 60} | settings
    return [item["question"] for item in gym_items.items(**found)]


def test_every_task_is_a_config_of_five_lines() -> None:
    for task in TASKS:
        source = ReasoningGymSource(task, split="validation", size=100)
        assert source.task == task
    assert len(TASKS) >= 100


@pytest.mark.parametrize("task", TASKS)
def test_every_task_gives_its_own_answers_the_full_score(task: str) -> None:
    item = gym_items.make_dataset(task, {}, seed=3, size=2)[0]
    if task in UNSCORED:
        with pytest.raises(LookupError, match="no reference answers"):
            gym_items.answer_of(item)
        return
    item["answer"] = gym_items.answer_of(item)
    row = source_row(task, item)
    assert row.score(item["answer"]) == 1
    assert 0 <= row.score("an unexpected { answer") <= 1, "a scorer that raises gives 0"


def source_row(task: str, item: dict) -> ReasoningGymRow:
    return ReasoningGymRow("0", [{"role": "user", "content": item["question"]}], item["answer"], item=item, task=task)


def test_no_question_is_in_two_splits_whatever_the_seeds_and_sizes() -> None:
    splits = {split: set() for split in gym_items.SPLITS}
    for split, found in splits.items():
        for seed in (0, 1, 2, 7):
            found |= set(questions(split=split, seed=seed, size=80))
            found |= set(questions(split=split, seed=seed, size=40, settings=SUMS | {"max_terms": 3}))
    names = list(splits)
    for first, second in ((a, b) for a in names for b in names if a < b):
        assert not splits[first] & splits[second]


def test_seeds_give_other_rows_and_not_the_same_ones_shifted() -> None:
    first, second = (questions(seed=seed, size=60) for seed in (1, 2))
    assert len(set(first) & set(second)) < 10, "of 42,000 questions"
    library = [gym_items.make_dataset("chain_sum", SUMS, seed, 50) for seed in (4, 5)]
    assert library[0][1]["question"] == library[1][0]["question"], "the trap that the stride avoids"


def test_a_larger_size_appends_rows_that_are_distinct() -> None:
    assert questions(size=90)[:60] == questions(size=60)
    assert len(set(questions(size=90))) == 90


@pytest.mark.slow
def test_rows_do_not_depend_on_the_hash_seed_or_the_state_of_generators() -> None:
    program = (
        "import json; from nrt_lightning import ReasoningGymSource as S;"
        "print(json.dumps([[r.question, r.answer] for r in S('isomorphic_strings', size=4).rows()]))"
    )
    found = set()
    for seed in ("1", "2"):
        variables = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(
            [sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True
        )
        found.add(done.stdout)
    assert len(found) == 1
    random.seed(0)
    numpy.random.seed(0)
    state = random.getstate(), numpy.random.get_state()[1].tolist()
    assert json.loads(found.pop())[0][1] == ReasoningGymSource("isomorphic_strings", size=4).rows()[0].answer
    assert (random.getstate(), numpy.random.get_state()[1].tolist()) == state


def test_the_score_as_a_signal_and_as_a_metric() -> None:
    (row,) = ReasoningGymSource("chain_sum", SUMS, size=1).rows()
    assert pickle.loads(pickle.dumps(row)) == row, "workers of a dataloader copy rows"

    def text(answer: str, *, emitted: bool = True, ended: bool = True, of: Row = row) -> RolloutText:
        return RolloutText(of.question, str(of.answer), "", emitted, answer, ended, of)

    signal, forced = ReasoningGymScore(), ReasoningGymScore(forced=True)
    assert signal.read_all([text(f" {row.answer} "), text(f"{row.answer}.00"), text("99")]) == [1, 1, 0]
    assert [signal.read(text(row.answer, emitted=False)), signal.read(text(row.answer, ended=False))] == [0, 0]
    assert forced.read(text(row.answer, emitted=False)) == 1
    with pytest.raises(InputError, match=r"sums.csv:3.*ReasoningGymSource"):
        signal.read(text("1", of=Row("0", row.messages, "1", origin="sums.csv:3")))


def test_an_answer_is_no_program(tmp_path) -> None:
    target = tmp_path / "written"
    answer = f"__import__('pathlib').Path({str(target)!r}).write_text('x')"
    item = gym_items.make_dataset("string_insertion", {}, seed=3, size=2)[0]
    assert source_row("string_insertion", item).score(answer) == 0
    assert not target.exists()
    gym_items.make_dataset("string_insertion", {}).score_answer(answer, item)
    assert target.exists(), "the library itself evaluates it"
    assert harmless("(3 + 4) * 2.5"), "usual answers are scored"
    assert harmless("x**3/3 + log(x) + C")


@pytest.mark.parametrize(
    ("task", "settings", "words"),
    [
        ("chain_sun", {}, r"task='chain_sun'.*'chain_sum'"),
        ("nothing_like_it", {}, r"task='nothing_like_it'.*known_tasks"),
        ("chain_sum", {"max_term": 3}, r"settings.max_term.*'max_terms'"),
        ("chain_sum", {"size": 3}, r"settings.size.*of the source"),
        ("chain_sum", {"min_terms": 5, "max_terms": 2}, r"settings=.*max_terms must be"),
        ("chain_sum", {"min_terms": "three"}, r"settings=.*three"),
        ("composite", {"datasets": [{"name": "chain_sun"}]}, r"datasets\[0\].task='chain_sun'.*'chain_sum'"),
        ("composite", {"datasets": ["chain_sum"]}, r"datasets\[0\].*name"),
    ],
)
def test_a_mistake_is_one_line_with_the_nearest_name(task: str, settings: dict, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        check_task(task, settings)
    assert "\n" not in str(caught.value)


def test_too_few_questions_and_no_answers_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"only \d different questions in the split 'test'.*size=9"):
        ReasoningGymSource("chain_sum", SUMS | {"min_terms": 1, "max_terms": 1}, "test", size=9).rows()
    with pytest.raises(InputError, match=r"rush_hour.*no reference answers"):
        ReasoningGymSource("rush_hour", size=1).rows()
    for setting, words in (({"split": "val"}, "'validation'"), ({"size": 0}, "size=0"), ({"seed": -1}, "seed=-1")):
        with pytest.raises(InputError, match=words):
            ReasoningGymSource("chain_sum", **setting)
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(InputError, match=r"pip install 'nrt-lightning\[real\]'"):
        ReasoningGymSource("chain_sum")


def test_a_mixture_of_tasks_and_the_data_module(llama_dir: str, caplog: pytest.LogCaptureFixture) -> None:
    mixture = {"datasets": [{"name": "chain_sum", "config": SUMS}, {"name": "gcd", "weight": 2.0}]}
    data = QADataModule(
        ReasoningGymSource("composite", mixture, size=30),
        ReasoningGymSource("composite", mixture, "validation", size=20, seed=3),
        tokenizer=llama_dir,
    )
    data.setup("fit")
    tasks = {row.item["metadata"]["source_dataset"] for row in data.encoded["train"].rows}
    assert tasks == {"chain_sum", "gcd"}
    assert "also stand in train" not in caplog.text
