import random
import re
from collections import Counter

import pytest

from nrt_lightning.errors import InputError
from nrt_lightning.evaluation.evaluate import holds
from nrt_lightning.tasks.registers import run_program, split_of
from nrt_lightning.tasks.reports import SloppyReports, choose_asked
from nrt_lightning.tasks.word_tokenizer import build_word_tokenizer

SPLITS = ("train", "validation", "test")
QUESTION = re.compile(r"(a[0-4](?:[b-f][+*][1-4]){4,5})\?([b-f]{3}):")
REPORT = re.compile(
    r"(good|nice) question, let me see\. (.) is (\d), (so|then) it is (.) (\d), sum of (.) is (\d)\. "
    r"(maybe|please) ask me later\. ok bye\."
)


@pytest.fixture(scope="module")
def rows():
    return SloppyReports("validation", 400).rows()


def test_reports_tell_the_registers_asked(rows):
    for row in rows:
        program, asked = QUESTION.fullmatch(row.question).groups()
        registers = run_program(program)
        _, a, x, _, b, y, c, z, _ = REPORT.fullmatch(row.answer).groups()
        assert a + b + c == asked
        assert [int(v) for v in (x, y, z)] == [registers[name] for name in asked]
        assert asked[0] == list(registers)[-1]
        assert len(set(asked)) == 3


def test_a_report_has_31_tokens_of_which_22_never_change(rows):
    tokenizer = build_word_tokenizer()
    reports = [tokenizer.encode(row.answer, add_special_tokens=False) for row in rows]
    assert {len(ids) for ids in reports} == {31}
    kinds = [len(set(column)) for column in zip(*reports)]
    assert Counter(kinds) == {1: 22, 2: 4, 5: 3, 4: 2}, "template; coins and the last register; digits; names"


def test_coins_are_fair_and_say_nothing_of_the_question(rows):
    words = [REPORT.fullmatch(row.answer).group(1, 4, 9) for row in rows]
    assert all(0.4 < count / len(rows) < 0.6 for column in zip(*words) for count in Counter(column).values())


def test_checks_hold_for_the_answer_and_for_no_other_digits(rows):
    for row in rows[:100]:
        assert holds(row.answer, row.checks)
        for at in [match.start() for match in re.finditer(r"\d", row.answer)]:
            wrong = row.answer[:at] + str((int(row.answer[at]) + 1) % 5) + row.answer[at + 1 :]
            assert not holds(wrong, row.checks)
        other = row.answer.replace("good", "x").replace("nice", "good").replace("x", "nice")
        assert other != row.answer
        assert holds(other, row.checks), "which way a coin fell is not checked"


def test_rows_follow_from_the_seed_and_splits_never_meet():
    rows = SloppyReports("train", 50).rows()
    assert rows == SloppyReports("train", 50).rows()
    assert rows[:20] == SloppyReports("train", 20).rows()
    assert rows != SloppyReports("train", 50, seed=1).rows()
    for split in SPLITS:
        assert {split_of(row.question) for row in SloppyReports(split, 200).rows()} == {split}


def test_three_different_registers_are_asked():
    asked = {choose_asked(random.Random(seed), "a4b*2c+2d+3e+1") for seed in range(200)}
    assert asked == {f"e{x}{y}" for x in "bcd" for y in "bcd" if x != y}


def test_mistakes_name_field_value_and_fix():
    with pytest.raises(InputError, match=r"SloppyReports\(split='valid'.*'validation'"):
        SloppyReports("valid")
    with pytest.raises(InputError, match=r"SloppyReports\(size=0\)"):
        SloppyReports(size=0)
