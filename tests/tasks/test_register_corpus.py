import random
import re
from collections import Counter

import pytest

from nrt_lightning.errors import InputError
from nrt_lightning.tasks.pointer_corpus import PointerCorpus
from nrt_lightning.tasks.pretraining import KINDS, Mixture
from nrt_lightning.tasks.register_corpus import READ_OFF, RegisterCorpus
from nrt_lightning.tasks.registers import RegisterPrograms, answer, run_program, split_of
from nrt_lightning.tasks.tiny_tokenizer import CHARACTERS, EOS, build_tokenizer

PROGRAM = re.compile(r"a[0-4](?:[b-f][+*][1-4]){3,}")
STEP = re.compile(r"([a-f])(?:[+*]\d)?=?(\d)")  # name and value
NOTHING = dict.fromkeys(KINDS, 0.0)


@pytest.fixture(scope="module")
def documents() -> list[str]:
    return [row.question + row.answer for row in RegisterCorpus(size=8000).rows()]


def only(count: int = 300, **weights: float) -> list[str]:
    rng, corpus = random.Random(0), RegisterCorpus(mixture=Mixture(**{**NOTHING, **weights}))
    return [corpus.document(rng) for _ in range(count)]


def test_rows_follow_from_the_seed_and_grow_at_the_end():
    rows = RegisterCorpus(size=50).rows()
    assert rows == RegisterCorpus(size=50).rows()
    assert rows[:20] == RegisterCorpus(size=20).rows()
    assert rows != RegisterCorpus(size=50, seed=1).rows()
    assert len({row.id for row in rows}) == 50


def test_every_document_has_a_first_character_and_a_rest():
    rows = RegisterCorpus(size=3000).rows()
    assert all(len(row.question) == 1 and row.question.strip() and row.answer for row in rows)


def test_no_document_holds_a_program_of_another_split(documents):
    programs = [match for text in documents for match in PROGRAM.findall(text)]
    assert len(programs) > 3000
    assert {split_of(program) for program in programs} == {"corpus"}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_no_held_out_program_appears_as_text(documents, split):
    text = "\n\n".join(documents)
    asked = {row.question.partition("?")[0] for row in RegisterPrograms(split, 1000).rows()}
    assert not [program for program in asked if program in text]


def test_the_marker_never_appears(documents):
    text = "".join(documents).replace(EOS, "")
    assert "<" not in text
    assert "response_start" not in text


def test_the_end_token_is_read_as_one_of_many_separators():
    share = sum(EOS in text for text in only(1000, log=1, read_off=1)) / 1000
    assert share == pytest.approx(1 / len(READ_OFF), abs=0.03)
    rest = dict.fromkeys(("question", "lesson", "sequence", "chatter"), 1)
    assert not any(EOS in text for text in only(1000, **rest))


def test_no_question_as_the_task_writes_it_goes_on_from_a_trace_to_an_answer(documents):
    asked_as_the_task_does = [text for text in documents if re.search(r"\?[a-f]{2}:", text)]
    assert len(asked_as_the_task_does) > 2000
    for text in asked_as_the_task_does:
        program, _, rest = text.partition("?")
        assert len(STEP.findall(rest[3:])) <= len(run_program(program))
        assert EOS not in text


def test_worked_questions_are_right_but_for_the_slips():
    def right(text: str) -> bool:
        program, _, steps = text.partition("?")
        registers = run_program(program)
        return all(registers[name] == int(value) for name, value in STEP.findall(steps[3:]))

    kinds = {"question": 1, "worked": 1, "guessed": 0, "chatted": 0}
    assert all(map(right, only(slip=0, **kinds)))
    assert not any(map(right, only(slip=1, **kinds)))
    assert 0.9 < sum(map(right, only(1000, **kinds))) / 1000 < 0.99


@pytest.mark.parametrize("slip", [0, 1])
def test_registers_are_read_off_the_log_as_it_stands(slip):
    for text in only(log=1, read_off=1, slip=slip):
        separator = max((s for s in READ_OFF if re.search(re.escape(s) + r"[a-f]\d,[a-f]\d$", text)), key=len)
        body, _, tail = text.rpartition(separator)
        program, asked, steps = re.fullmatch(r"(\w[^?!#@]+)[?!#@](\w\w)[ :>](.*)", body).groups()
        named = dict(STEP.findall(steps))
        assert list(named)[-1] == asked[0] == PROGRAM.fullmatch(program)[0][-3]
        assert tail == ",".join(name + named[name] for name in asked)


def test_notes_hold_no_program_and_are_read_off():
    for text in only(note=1):
        assert not PROGRAM.search(text)
        asked, named = text[1:3], dict(STEP.findall(text[4:-5]))
        assert text.endswith(",".join(name + named[name] for name in asked))


def test_log_tails_come_as_often_as_asked():
    tails = sum(bool(re.search(r"[a-f]\d,[a-f]\d$", text)) for text in only(1000, log=1, read_off=0.5))
    assert 420 < tails < 640  # logs that separate their steps by commas may end alike


def test_guesses_are_at_random():
    guesses = [text.partition(":")[2] for text in only(500, question=1, worked=0, guessed=1, chatted=0)]
    assert all(re.fullmatch(r"[c-f]\d,[b-e]\d", guess) for guess in guesses)
    counts = Counter(re.sub("[a-f,]", "", guess) for guess in guesses)
    assert len(counts) == 25
    assert max(counts.values()) < 40


def test_equations_are_right():
    for text in only(lesson=1):
        for left, operation, right, result in re.findall(r"(\d)([+*])(\d)=(\d)", text):
            assert eval(f"({left} {operation} {right}) % 5") == int(result)


def test_kinds_keep_their_weights(documents):
    def share(pattern: str) -> float:
        return sum(bool(re.match(pattern, text)) for text in documents) / len(documents)

    mixture = Mixture()
    total = sum(getattr(mixture, name) for name in NOTHING)
    program = r"a\d(?:[b-f][+*]\d)+"
    assert share(program + r"\?\w\w:") == pytest.approx(mixture.question / total, abs=0.02)
    assert share(program + r"(?:[!#@]|\?\w\w )") == pytest.approx(mixture.log / total, abs=0.02)
    assert share(r"\d[+*]\d=") == pytest.approx(mixture.lesson / total, abs=0.02)


@pytest.mark.parametrize("asked", [2, 5])
def test_explained_questions_follow_their_answer_and_no_question_is_worked_out(asked):
    mixture = Mixture(**dict.fromkeys(NOTHING, 0) | {"question": 1, "worked": 0, "explained": 1, "slip": 0})
    texts = [row.question + row.answer for row in RegisterCorpus(size=300, mixture=mixture, asked=asked).rows()]
    explained = [text for text in texts if "<" in text]
    assert 0.4 < len(explained) / len(texts) < 0.7
    for text in explained:
        given, _, rest = text.partition("<")
        question, steps = rest[: rest.index(":") + 1], rest[rest.index(":") + 1 :]
        program, names = question[:-1].split("?")
        assert given == answer(program, names)
        assert len(names) == asked
        registers = run_program(program)
        written = dict(STEP.findall(steps))
        assert {name: int(value) for name, value in written.items() if name != "a"} == {
            name: value for name, value in registers.items() if name != "a"
        }
    with pytest.raises(InputError, match=r"PointerCorpus.mixture.explained is 1"):
        PointerCorpus(mixture=mixture)


def test_made_up_answers_are_explained_as_they_are():
    mixture = Mixture(**NOTHING | {"question": 1}, worked=0, guessed=0, chatted=0.01, explained=1, slip=0)
    rows, right = RegisterCorpus(size=400, mixture=mixture, asked=5, made_up=0.5).rows(), []
    for text in (row.question + row.answer for row in rows):
        if "<" not in text:
            continue
        given, _, rest = text.partition("<")
        question, _, steps = rest.partition(":")
        written = dict(STEP.findall(steps))
        stated = {part[0]: part[1] for part in given.split(",")}
        assert stated == {name: value for name, value in written.items() if name != "a"}, "the steps state the answer"
        right.append(given == answer(*question.split("?")))
    assert 0.4 < sum(right) / len(right) < 0.6
    with pytest.raises(InputError, match=r"RegisterCorpus.made_up=2"):
        RegisterCorpus(made_up=2)


def test_logs_and_notes_ask_for_as_many_registers():
    for mixture, least in (({"log": 1}, 5), ({"note": 1}, 3)):
        weights = Mixture(**NOTHING | mixture, read_off=1)
        for row in RegisterCorpus(size=100, mixture=weights, asked=5).rows():
            text = row.question + row.answer
            names = re.search(r"[!#@?]([b-f]{2,5})[ :>]", text)[1]
            assert least <= len(names) <= 5
            assert [part[0] for part in re.split(r"[|/~\n>]|=>| - |</s>", text)[-1].split(",")] == list(names)


def test_the_tokenizer_knows_every_character(documents):
    assert set("".join(documents).replace(EOS, "")) <= set(CHARACTERS)
    tokenizer = build_tokenizer()
    for text in documents[:200]:
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.unk_token_id not in ids
        assert (tokenizer.eos_token_id in ids) == (EOS in text)
        assert tokenizer.decode(ids) == text


def test_mistakes_name_field_value_and_fix():
    with pytest.raises(InputError, match=r"slip=-0.1\)"):
        Mixture(slip=-0.1)
    with pytest.raises(InputError, match=r"read_off=1.5\)"):
        Mixture(read_off=1.5)
    with pytest.raises(InputError, match=r"question, log, note, .* 0"):
        Mixture(**NOTHING)
    with pytest.raises(InputError, match=r"worked, guessed, chatted .*0"):
        Mixture(worked=0, guessed=0, chatted=0)
    with pytest.raises(InputError, match=r"size=0 .*1"):
        RegisterCorpus(size=0)
