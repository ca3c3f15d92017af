import random
import re
from collections import Counter
from itertools import product

import pytest

from nrt_lightning.errors import InputError
from nrt_lightning.tasks import base
from nrt_lightning.tasks.register_corpus import RegisterCorpus
from nrt_lightning.tasks.registers import (
    NAMES,
    OPERATIONS,
    RegisterPrograms,
    answer,
    choose_asked,
    make_program,
    run_program,
    split_of,
    worked_trace,
)

SPLITS = ("train", "validation", "test")
QUESTION = re.compile(r"(a[0-4](?:[b-f][+*][1-4]){3,5})\?([b-f])([b-f]):")


def heads(split: str) -> set[str]:
    """First value and three operations: what two programs must share to be alike."""
    return {row.question[:11] for row in RegisterPrograms(split, 1000).rows()}


def test_the_example_of_the_documentation():
    assert run_program("a4b*2c+2d+3?dc:") == {"a": 4, "b": 3, "c": 0, "d": 3}
    assert answer("a4b*2c+2d+3?dc:", "dc") == "d3,c0"
    assert worked_trace("a4b*2c+2d+3") == "b3c0d3"


def test_programs_agree_with_python_arithmetic():
    rng = random.Random(1)
    for _ in range(100):
        program = make_program(rng, "train")
        value = int(program[1])
        for at in range(2, len(program), 3):
            value = eval(f"({value} {program[at + 1]} {program[at + 2]}) % 5")
            assert run_program(program)[program[at]] == value


def test_questions_have_the_form_and_the_answers_are_right():
    for row in RegisterPrograms("validation", 300).rows():
        program, last, earlier = QUESTION.fullmatch(row.question).groups()
        registers = run_program(program)
        assert last == list(registers)[-1] > earlier != "a"
        assert row.answer == f"{last}{registers[last]},{earlier}{registers[earlier]}"
        assert row.messages == [{"role": "user", "content": row.question}]
        assert "validation" in row.origin


def test_lengths_and_answers_are_spread():
    rows = RegisterPrograms("train", 1500).rows()
    lengths = Counter(row.question.count("+") + row.question.count("*") for row in rows)
    assert set(lengths) == {3, 4, 5}
    assert min(lengths.values()) > 300
    assert max(Counter(re.sub("[a-z]", "", row.answer) for row in rows).values()) < 0.08 * len(rows)  # 1/25 each


@pytest.mark.parametrize("split", SPLITS)
def test_rows_follow_from_the_seed_and_grow_at_the_end(split):
    rows = RegisterPrograms(split, 60).rows()
    assert rows == RegisterPrograms(split, 60).rows()
    assert rows[:20] == RegisterPrograms(split, 20).rows()
    assert [row.question for row in rows] != [row.question for row in RegisterPrograms(split, 60, seed=1).rows()]


def test_rows_do_not_change_between_releases():
    """The shipped base and published figures rest on exactly these splits."""
    first = [(row.id, row.question, row.answer) for split in SPLITS for row in RegisterPrograms(split, 1).rows()]
    assert first == [
        ("registers-train-0-0", "a2b+2c*4d*3e+1?ec:", "e4,c1"),
        ("registers-validation-0-0", "a2b+3c+2d*4e+3f*4?fd:", "f4,d3"),
        ("registers-test-0-0", "a2b+4c+4d*4?dc:", "d0,c0"),
    ]


@pytest.mark.parametrize("split", SPLITS)
def test_rows_and_ids_are_distinct_even_at_the_largest_size(split):
    rows = RegisterPrograms(split, RegisterPrograms.max_rows).rows()
    assert len({row.question for row in rows}) == len({row.id for row in rows}) == RegisterPrograms.max_rows


def test_splits_are_disjoint_even_in_their_beginnings():
    parts = {split: heads(split) for split in SPLITS}
    assert not parts["train"] & parts["validation"]
    assert not parts["train"] & parts["test"]
    assert not parts["validation"] & parts["test"]
    assert all(split_of(head) == split for split, part in parts.items() for head in part)


def test_shares_are_kept():
    programs = [f"a{value}b{b}c{c}d{d}" for value in range(5) for b, c, d in product(OPERATIONS, repeat=3)]
    counts = Counter(map(split_of, programs))
    assert sum(base.SPLITS.values()) == pytest.approx(1)
    for name, fraction in base.SPLITS.items():
        assert counts[name] / len(programs) == pytest.approx(fraction, abs=0.03)


def test_asked_registers_are_the_last_and_an_earlier_computed_one():
    rng = random.Random(0)
    asked = {choose_asked(rng, "a4b*2c+2d+3e+1") for _ in range(100)}
    assert asked == {"eb", "ec", "ed"}
    assert NAMES[0] not in "".join(asked)


@pytest.mark.parametrize("asked", [1, 3, 5])
def test_more_registers_are_asked_for_of_long_enough_programs(asked):
    rows, lengths = RegisterPrograms(size=200, asked=asked).rows(), set()
    for row in rows:
        program, names = row.question[:-1].split("?")
        registers = run_program(program)
        assert len(set(names)) == len(names) == asked
        assert names[0] == list(registers)[-1]
        assert NAMES[0] not in names
        assert row.answer == ",".join(f"{name}{registers[name]}" for name in names)
        lengths.add(len(registers) - 1)
    assert lengths == set(range(max(asked, 3), 6))
    assert [row.question for row in rows] != [row.question for row in RegisterPrograms(size=200).rows()]


@pytest.mark.parametrize(
    "program", ["", "a4", "a5b*2c+2d+3", "a4b*2c+2e+3", "a4c*2b+2d+3", "a4b*2c+2d+3x", "a4b*2c+2d-3", "a4b*2c+2d+3e"]
)
def test_a_malformed_program_is_refused(program):
    with pytest.raises(InputError, match=r"program="):
        run_program(program)


def test_mistakes_name_field_value_and_fix():
    with pytest.raises(InputError, match=r"asked='dz'.*'z'.*'b'"):
        answer("a4b*2c+2d+3", "dz")
    with pytest.raises(InputError, match=r"split='corpus'.*'validation'"):
        RegisterPrograms("corpus")
    with pytest.raises(InputError, match=r"split='valid'.*'validation'"):
        RegisterPrograms("valid")
    with pytest.raises(InputError, match=r"size=0.* 1 "):
        RegisterPrograms("train", size=0)
    for number in (0, 6, -1):
        with pytest.raises(InputError, match=rf"RegisterPrograms.asked is {number}.* 1 to 5"):
            RegisterPrograms("train", asked=number)
        with pytest.raises(InputError, match=rf"RegisterCorpus.asked is {number}.* 1 to 5"):
            RegisterCorpus(asked=number)
    with pytest.raises(InputError, match=r"split='exam'.*'train'"):
        make_program(random.Random(0), "exam")
    with pytest.raises(InputError, match="program="):
        split_of("b3c0d3")
