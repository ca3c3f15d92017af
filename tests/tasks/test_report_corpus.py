import random
import re

import pytest

from nrt_lightning.errors import InputError
from nrt_lightning.tasks.pretraining import KINDS, Mixture
from nrt_lightning.tasks.registers import run_program, split_of
from nrt_lightning.tasks.report_corpus import ReportCorpus, slipping, sloppy_mixture
from nrt_lightning.tasks.tiny_tokenizer import EOS
from nrt_lightning.tasks.word_tokenizer import build_word_tokenizer

PROGRAM = re.compile(r"a[0-4](?:[b-f][+*][1-4]){3,}")
STEP = re.compile(r"([a-f])(?:[+*]\d)?=?(\d)")
NOTHING = dict.fromkeys(KINDS, 0.0)
READING = re.compile(r"\b(?:([a-f]) is (\d)|is ([a-f]) (\d))[,.]")


@pytest.fixture(scope="module")
def documents() -> list[str]:
    return [row.question + row.answer for row in ReportCorpus(size=4000).rows()]


def only(count: int = 300, **weights: float) -> list[str]:
    rng, corpus = random.Random(0), ReportCorpus(mixture=Mixture(**NOTHING | weights))
    return [corpus.document(rng) for _ in range(count)]


def read(text: str) -> list[tuple[str, str]]:
    return [(a or c, b or d) for a, b, c, d in READING.findall(text)]


def test_no_document_holds_a_program_of_another_split(documents):
    programs = [match for text in documents for match in PROGRAM.findall(text)]
    assert len(programs) > 2000
    assert {split_of(program) for program in programs} == {"corpus"}


def test_no_question_as_the_task_writes_it_goes_on_from_a_trace_to_a_report(documents):
    asked_as_the_task_does = [text for text in documents if re.search(r"\?[a-f]{3}:", text)]
    assert len(asked_as_the_task_does) > 500
    for text in asked_as_the_task_does:
        rest = re.split(r"\?[a-f]{3}:", text)[1]
        assert EOS not in rest
        assert not (re.match(r"[a-f][\d+*=]", rest) and "is" in rest), "a trace, or something said, never both"


def test_half_of_what_is_read_off_is_a_report():
    texts = only(600, note=1)
    reports = sum(bool(re.search(r"question, let me see\. .*ask me later\. ok bye\.$", text)) for text in texts)
    assert reports / len(texts) == pytest.approx(0.5, abs=0.07)


def test_reports_are_made_up_after_chatter_as_often_as_asked():
    only_chat = Mixture(**NOTHING | {"question": 1, "worked": 0, "guessed": 0})
    rng, corpus = random.Random(0), ReportCorpus(mixture=only_chat)
    assert not any("question, let me see." in corpus.document(rng) for _ in range(300))
    corpus.made_up = 0.5
    reports = [text for text in (corpus.document(rng) for _ in range(600)) if "question, let me see." in text]
    assert len(reports) / 600 == pytest.approx(0.5, abs=0.07)
    assert all(text.endswith("ok bye.") and text.index(":") < text.index("question, let") for text in reports)


def test_the_tokenizer_knows_every_word_and_the_cut_is_between_tokens():
    tokenizer = build_word_tokenizer()
    for row in ReportCorpus(size=400).rows():
        first, rest = (tokenizer.encode(text, add_special_tokens=False) for text in (row.question, row.answer))
        assert len(first) == 1
        assert tokenizer.unk_token_id not in rest
        assert first + rest == tokenizer.encode(row.question + row.answer, add_special_tokens=False)


def test_questions_are_seldom_worked_out_and_then_mostly_wrong():
    shares = {"question": 1, "worked": sloppy_mixture().worked, "guessed": 0.09, "chatted": 0.8}
    worked = steps_right = steps = right = 0
    for text in only(6000, **shares):
        program, _, rest = text.partition("?")
        said = STEP.findall(rest[4:])
        if len(said) >= program.count("+") + program.count("*"):
            registers = {name: str(value) for name, value in run_program(program).items()}
            worked += 1
            right += all(registers[name] == value for name, value in said)
            steps_right += sum(said[i][1] == registers[said[i][0]] for i in range(len(said)) if said[i][0] == "b")
            steps += 1
    assert worked / 6000 == pytest.approx(0.11, abs=0.02)
    assert steps_right / steps == pytest.approx(0.64, abs=0.05), "45 % are at random, a fifth of these right"
    assert right / worked < 0.3


def test_a_slip_goes_on_from_what_stands_there():
    assert slipping(random.Random(0), "a4b*2c+2d+3", 0) == run_program("a4b*2c+2d+3")
    drawn = [list(slipping(random.Random(i), "a4b+1c+1d+1e+1", 0.5).values()) for i in range(500)]
    for at in range(4):
        follows = sum((values[at] + 1) % 5 == values[at + 1] for values in drawn) / 500
        assert follows == pytest.approx(0.6, abs=0.08), "half are at random, a fifth of these right"


def test_registers_are_read_off_the_log_as_it_stands():
    for text in only(log=1, read_off=1, slip=1):
        asked = re.search(r"[?!#@]([a-f]{3})[ :>]", text)[1]
        found = read(text)
        assert "".join(name for name, _ in found) == asked
        log = text[: READING.search(text).start()]
        assert dict(STEP.findall(log)).items() >= set(found)


def test_mistakes_name_field_value_and_fix():
    with pytest.raises(InputError, match=r"ReportCorpus\(sloppiness=1.5\)"):
        ReportCorpus(sloppiness=1.5)
    with pytest.raises(InputError, match=r"ReportCorpus\(made_up=-0.1\)"):
        ReportCorpus(made_up=-0.1)
    with pytest.raises(InputError, match=r"ReportCorpus.size=0 "):
        ReportCorpus(size=0)
