import json
import logging
from pathlib import Path

import datasets
import pytest

from nrt_lightning.data import (
    ChatTemplate,
    FileSource,
    MemorySource,
    Messages,
    PlainTemplate,
    QADataModule,
    QASource,
    QuestionAnswer,
    prompt_example,
)
from nrt_lightning.errors import InputError
from nrt_lightning.structures import Row

RECORDS = [{"id": f"r{n}", "question": f"{n}+1?", "answer": n + 1} for n in range(10)]


def ids(data, split):
    return [row.id for row in data.encoded[split].rows]


@pytest.fixture
def make(tokenizer_dir):
    def make(**settings):
        data = QADataModule(tokenizer=tokenizer_dir, **settings)
        data.setup()
        return data

    return make


def test_paths_lists_datasets_and_their_splits_are_rows(make, sums_file):
    rows = [Row("a", [{"role": "user", "content": "1?"}], "2")]
    table = datasets.Dataset.from_list(RECORDS)
    both = datasets.DatasetDict({"train": table, "validation": table.select([0, 1]), "test": table.select([2])})
    assert len(make(train=Path(sums_file)).encoded["train"]) == 11
    assert make(train=RECORDS).encoded["train"].rows[3].answer == "4"
    assert ids(make(train=rows), "train") == ["a"]
    assert ids(make(train=both["train"]), "train") == [f"r{n}" for n in range(10)]
    data = make(train=both, val=both, test=both)
    assert (ids(data, "val"), ids(data, "test")) == (["r0", "r1"], ["r2"])
    assert make(predict=[{"question": "1?"}]).encoded["predict"].rows[0].question == "1?"
    assert len(str(make(train=RECORDS).sources["train"])) < 200, "the record of the run names it"


def test_values_that_are_no_rows_are_refused(make):
    with pytest.raises(InputError, match=r"data\.train.*int"):
        QADataModule(train=3)
    with pytest.raises(InputError, match=r"data\.train.*generator.*list"):
        QADataModule(train=(record for record in RECORDS))
    with pytest.raises(InputError, match=r"data\.val.*'validation'.*'valid'"):
        QADataModule(val={"valid": RECORDS})
    with pytest.raises(InputError, match=r"data\.train:row 1.*str.*dicts"):
        make(train=["a"])


def test_formats_of_sources_that_have_none(make, tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"q": "1?", "a": 2}) + "\n")
    mine = QuestionAnswer("q", "a")
    for source in (str(path), path, FileSource(str(path)), [{"q": "1?", "a": 2}]):
        assert make(train=source, format=mine).encoded["train"].rows[0].answer == "2"
    assert make(train=FileSource(str(path), mine), predict=str(path), format=mine).encoded["predict"].rows


def test_a_format_that_no_source_uses_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"data\.format=Messages.*data\.train \(FileSource\)"):
        QADataModule(train=FileSource("d.jsonl", QuestionAnswer("q")), format=Messages())

    class Made(QASource):
        def rows(self):
            return []

    with pytest.raises(InputError, match=r"data\.format=Messages.*data\.val \(Made\)"):
        QADataModule(val=Made(), format=Messages())
    QADataModule(format=Messages())  # the rows come by another config


def test_rows_to_predict_need_no_answers_and_are_not_refused_for_them(make, tmp_path):
    path = tmp_path / "ask.csv"
    path.write_text(f"question,answer\n1?,\n2?,{'9' * 600}\n3?,4\n")
    for source in (str(path), FileSource(str(path)), FileSource(str(path), QuestionAnswer())):
        assert len(make(predict=source).encoded["predict"]) == 3


def test_rows_are_held_out_by_number_and_by_fraction(make):
    for val, test, sizes in ((2, 3, (5, 2, 3)), (0.2, 0.1, (7, 2, 1)), (0.01, 4, (5, 1, 4)), (0, 0.5, (5, None, 5))):
        data = make(train=RECORDS, val_rows=val, test_rows=test)
        splits = [data.encoded.get(split) for split in ("train", "val", "test")]
        assert tuple(None if rows is None else len(rows) for rows in splits) == sizes
        assert sorted(row for split in data.encoded for row in ids(data, split)) == sorted(r["id"] for r in RECORDS)
    assert ids(make(train=RECORDS, val_rows=2), "val") == ids(make(train=RECORDS, val_rows=2, test_rows=3), "val")
    assert len(make(train=RECORDS, val_rows=0.2, max_train_rows=3).encoded["train"]) == 3


def test_impossible_numbers_of_held_out_rows_are_refused(make):
    for settings, words in (
        ({"val_rows": 6, "test_rows": 4}, r"data\.val_rows=6 and data\.test_rows=4.*10 rows"),
        ({"test_rows": 2, "test": RECORDS}, r"test_rows=2.*`train`.*`test`"),
        ({"val_rows": 1.5}, r"val_rows=1\.5"),
        ({"test_rows": -1}, r"test_rows.*-1"),
    ):
        with pytest.raises(InputError, match=words):
            make(train=RECORDS, **settings)


def test_rows_of_evaluation_that_stand_in_train_are_counted(make, caplog):
    other = [{"question": "99?", "answer": 1}]
    make(train=RECORDS, val=[{"question": " 3+1? ", "answer": 4}, *other], test=RECORDS[:4] + other)
    assert "1 of 2 val rows also stand in train" in caplog.text
    assert "4 of 5 test rows also stand in train" in caplog.text
    assert "first: data.test:row 1" in caplog.text
    caplog.clear()
    make(train=RECORDS, val=other, test_rows=2)
    make(train=RECORDS + RECORDS[:1], val=RECORDS[:1] and other)
    assert "also stand" not in caplog.text


def test_conversations_are_compared_as_wholes(make, caplog):
    def talk(first):
        turns = [("user", first), ("assistant", "Hm."), ("user", "So?"), ("assistant", "1")]
        return {"messages": [{"role": role, "content": content} for role, content in turns]}

    template = ChatTemplate(template="{% for m in messages %}{{ m.content }}{% endfor %}")
    make(train=[talk("a")], val=[talk("b")], format=Messages(), template=template)
    assert "also stand" not in caplog.text
    make(train=[talk("a")], val=[talk("b"), talk("a")], format=Messages(), template=template)
    assert "1 of 2 val rows" in caplog.text


def test_test_rows_are_read_before_training(tokenizer_dir):
    data = QADataModule(train=RECORDS, test="nowhere.csv", tokenizer=tokenizer_dir)
    with pytest.raises(InputError, match=r"nowhere\.csv"):
        data.setup("fit")


def test_no_template_is_the_chat_template_or_asks_for_reasoning(chat_tokenizer, char_tokenizer, tmp_path, caplog):
    prompts = {}
    for name, tokenizer in (("chat", chat_tokenizer), ("plain", char_tokenizer)):
        tokenizer.save_pretrained(tmp_path / name)
        data = QADataModule(train=RECORDS, tokenizer=str(tmp_path / name))
        with caplog.at_level(logging.INFO):
            data.setup("fit")
        prompts[name] = data.example()
        assert caplog.text.count(prompts[name]) == 1, "logged once"
    assert prompts["chat"].splitlines()[1] == "| <user>0+1?</s><assistant>"
    assert "step by step" in prompts["plain"]
    assert "0+1?" in prompts["plain"]
    assert prompts["plain"].endswith("answer: 1")
    assert data.template != PlainTemplate()
    assert QADataModule(train=RECORDS, template=PlainTemplate()).template == PlainTemplate()


def test_the_template_follows_the_tokenizer(chat_tokenizer, char_tokenizer, tmp_path):
    chat_tokenizer.save_pretrained(tmp_path / "chat")
    data = QADataModule(train=RECORDS, tokenizer=str(tmp_path / "chat"))
    data.setup("fit")
    assert data.template == ChatTemplate()
    data._loaded_tokenizer = char_tokenizer
    data.setup("fit")
    assert isinstance(data.template, PlainTemplate)


def test_an_example_shows_every_line(char_tokenizer):
    shown = prompt_example(
        PlainTemplate("a\n{question}\nb"), Row("", [{"role": "user", "content": "?"}]), char_tokenizer
    )
    assert shown.splitlines()[1:] == ["| a", "| ?", "| b"]


def test_memory_source_reads_only_the_first_rows():
    assert len(MemorySource(RECORDS, max_rows=2).rows()) == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"val_rows": None}, {"val_rows": "3"}, {"test_rows": float("inf")}, {"batch_size": None}, {"window": "2"},
        {"max_prompt_tokens": None}, {"max_answer_tokens": 1}, {"max_dropped_share": None}, {"max_train_rows": True},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_are_no_numbers_are_refused_by_name(settings):
    [(name, value)] = settings.items()
    with pytest.raises(InputError, match=rf"^data\.{name}={value!r} is "):
        QADataModule(train=RECORDS, **settings)
