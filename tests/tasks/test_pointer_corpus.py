import random
import re

import pytest

from nrt_lightning.tasks.pointer_corpus import PointerCorpus
from nrt_lightning.tasks.pointers import PLACES, split_of, walk
from nrt_lightning.tasks.pretraining import KINDS, Mixture
from nrt_lightning.tasks.register_corpus import READ_OFF
from nrt_lightning.tasks.tiny_tokenizer import EOS, build_tokenizer

MAP = re.compile(r"(?:[a-h]{2} ){7}[a-h]{2}(?=[?!#@])")
STEP = re.compile(r"(\d)=?([a-h])?([a-h])")
NOTHING = dict.fromkeys(KINDS, 0.0)


@pytest.fixture(scope="module")
def documents() -> list[str]:
    return [row.question + row.answer for row in PointerCorpus(size=4000).rows()]


def only(count: int = 300, **weights: float) -> list[str]:
    rng, corpus = random.Random(0), PointerCorpus(mixture=Mixture(**NOTHING | weights))
    return [corpus.document(rng) for _ in range(count)]


def pointers_of(text: str) -> dict[str, str]:
    return {pair[0]: pair[1] for pair in text.split()}


def test_no_document_holds_a_map_of_another_split(documents):
    maps = [pointers_of(found) for text in documents for found in MAP.findall(text)]
    assert len(maps) > 2000
    assert {split_of(pointers) for pointers in maps} == {"corpus"}


@pytest.mark.parametrize(("slip", "least", "most"), [(0, 1, 1), (1, 0, 0.3)])
def test_worked_questions_follow_the_map_but_for_slips(slip, least, most):
    right = []
    for text in only(question=1, worked=1, guessed=0, chatted=0, slip=slip):
        pointers, rest = pointers_of(MAP.match(text)[0]), text.partition("?")[2]
        places = "".join(place for _, _, place in STEP.findall(rest[4:]))
        assert len(places) == int(rest[1])
        right.append(places == walk(pointers, rest[0], len(places)))
    assert least <= sum(right) / len(right) <= most


def test_places_are_read_off_the_walk_as_it_stands():
    for text in only(log=1, read_off=1, slip=1):
        separator = max((s for s in READ_OFF if re.search(re.escape(s) + r"\d[a-h],\d[a-h]$", text)), key=len)
        log, _, tail = text.rpartition(separator)
        said = {number: place for number, _, place in STEP.findall(re.split(r"[?!#@]", log)[1][3:])}
        assert tail == ",".join(number + said[number] for number in (tail[0], tail[3]))


def test_lessons_show_pairs_again():
    for text in only(lesson=1):
        separator = next(s for s in sorted(READ_OFF, key=len, reverse=True) if s in text)
        pairs, again = (set(part.split()) for part in text.split(separator, 1))
        assert again <= pairs
        assert {pair[0] for pair in pairs} == {pair[1] for pair in pairs} <= set(PLACES)


def test_no_question_goes_on_from_a_trace_to_an_answer_and_no_marker_appears(documents):
    for text in documents:
        assert "<" not in text.replace(EOS, "")
        if re.search(r"\?[a-h]\d\d:", text):
            assert EOS not in text


def test_the_tokenizer_knows_every_character(documents):
    tokenizer = build_tokenizer()
    for text in documents[:200]:
        assert tokenizer.unk_token_id not in tokenizer.encode(text, add_special_tokens=False)
