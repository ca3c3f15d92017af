import random
import re

import pytest

from nrt_lightning.errors import InputError
from nrt_lightning.tasks.pointers import PLACES, PointerChasing, answer, make_map, split_of, walk, worked_trace

SPLITS = ("train", "validation", "test")
QUESTION = re.compile(r"((?:[a-h]{2} ){7}[a-h]{2})\?([a-h])([4-6])([2-5]):")


def pointers_of(question: str) -> dict[str, str]:
    return {pair[0]: pair[1] for pair in question.partition("?")[0].split()}


def test_the_example_of_the_documentation():
    question = "cf ad ga hb eh bg de fc?a42:"
    assert worked_trace(question) == "1ad2de3eh4hb"
    assert answer("dehb", "a42") == "4b,2e"


def test_answers_follow_the_map():
    for row in PointerChasing("validation", 300).rows():
        _, start, last, earlier = QUESTION.fullmatch(row.question).groups()
        place, places = start, [start]
        for _ in range(int(last)):
            place = pointers_of(row.question)[place]
            places.append(place)
        assert row.answer == f"{last}{places[int(last)]},{earlier}{places[int(earlier)]}"
        assert int(earlier) < int(last)
        assert len(set(places)) == len(places), "no place twice: nothing can be guessed from a short loop"
        assert worked_trace(row.question) == "".join(f"{i}{places[i - 1]}{places[i]}" for i in range(1, len(places)))


def test_maps_are_one_cycle():
    pointers = make_map(random.Random(0), "train")
    assert sorted(walk(pointers, "a", len(PLACES))) == list(PLACES)


def test_rows_follow_from_the_seed_and_no_map_is_in_two_splits():
    rows = PointerChasing("train", 50).rows()
    assert rows == PointerChasing("train", 50).rows()
    assert rows[:20] == PointerChasing("train", 20).rows()
    maps = {s: {tuple(sorted(r.question[:23].split())) for r in PointerChasing(s, 800).rows()} for s in SPLITS}
    assert not maps["train"] & maps["test"]
    assert not maps["train"] & maps["validation"]
    assert not maps["test"] & maps["validation"]
    for split, found in maps.items():
        assert {split_of({pair[0]: pair[1] for pair in pairs}) for pairs in found} == {split}


def test_places_asked_are_spread():
    answers = [row.answer for row in PointerChasing("train", 1500).rows()]
    for place in PLACES:
        assert 0.08 < sum(text[1] == place for text in answers) / len(answers) < 0.17


def test_mistakes_name_field_value_and_fix():
    with pytest.raises(InputError, match="question='ab bc"):
        worked_trace("ab bc?")
    with pytest.raises(InputError, match=r"split='exam'.*'train'"):
        make_map(random.Random(0), "exam")
    with pytest.raises(InputError, match=r"PointerChasing\(size=6000\).*5000"):
        PointerChasing(size=6000)
