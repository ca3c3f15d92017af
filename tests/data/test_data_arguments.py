"""Rows given by path, on the command line and in YAML: the text of a path is neither read nor imported."""

import inspect
import json
import os
from types import UnionType
from typing import Union, get_origin

import pytest
import yaml
from jsonargparse import ArgumentParser

import nrt_lightning
from nrt_lightning import RegisterPrograms
from nrt_lightning.data import FileSource, QADataModule, QASource
from nrt_lightning.data.arguments import is_data_path
from nrt_lightning.errors import InputError

SPLITS = ("train", "val", "test", "predict")
ROWS = [{"question": f'Wie groß ist "{n}", plus 1?', "answer": n + 1} for n in range(4)]


class WordSource(QASource):
    """Rows for the parser to find by their class."""

    def rows(self):
        return []


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A directory with files in all formats, and modules of the same names, which write a file when imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    quoted = "".join(f'"Wie groß ist ""{n}"", plus 1?"{{0}}{n + 1}\n' for n in range(4))
    (tmp_path / "rows.csv").write_text("question,answer\n" + quoted.format(","), encoding="utf-8")
    (tmp_path / "rows.tsv").write_text("question\tanswer\n" + quoted.format("\t"), encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), "rows.parquet")
    (tmp_path / "class.jsonl").write_text(json.dumps({"class_path": "evilmod.X"}))
    (tmp_path / "brackets.jsonl").write_text("[" * 100_000)
    (tmp_path / "brackets.json").write_text("[" * 100_000)
    for name in ("evilmod", "rows"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\nX = csv = tsv = 1\n")
    return tmp_path


def parse(split, text, how):
    """A data module whose split is given by option or in YAML."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(QADataModule, "data")
    if how == "option":
        config = parser.parse_args(["--data=QADataModule", f"--data.{split}={text}"])
    else:
        config = parser.parse_string(yaml.dump({"data": {"class_path": "QADataModule", "init_args": {split: text}}}))
    assert parser.parse_string(parser.dump(config)) == config, "the saved config gives the same run"
    return parser.instantiate(config).data


@pytest.mark.parametrize("how", ["option", "yaml"])
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl", "rows.parquet"])
def test_every_file_is_rows_in_every_split(folder, tokenizer_dir, how, split, name):
    data = parse(split, name, how)
    assert data.sources[split] == name
    data.tokenizer = tokenizer_dir
    data.setup()
    rows = data.encoded[split].rows
    assert [row.question for row in rows] == [row["question"] for row in ROWS]
    assert [row.answer for row in rows] == ([None] * 4 if split == "predict" else ["1", "2", "3", "4"])
    assert not (folder / "imported").exists()


@pytest.mark.parametrize("how", ["option", "yaml"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("class.jsonl", r"class\.jsonl:1.*'question'"),
        ("brackets.jsonl", r"brackets\.jsonl:1.*brackets"),
        ("brackets.json", r"brackets\.json:1.*brackets"),
        ("pipe.jsonl", r"pipe\.jsonl.*regular file"),
        ("rows.cvs", r"rows\.cvs.*'rows\.csv'"),
        ("/dev/zero", r"/dev/zero.*regular file"),
    ],
)
def test_content_is_text_never_code(folder, tokenizer_dir, how, name, words):
    os.mkfifo(folder / "pipe.jsonl")
    data = parse("train", name, how)
    data.tokenizer = tokenizer_dir
    with pytest.raises(InputError, match=words):
        data.setup()
    assert not (folder / "imported").exists()


def test_a_pipe_in_a_directory_is_refused(folder):
    (folder / "data").mkdir()
    os.mkfifo(folder / "data" / "train.jsonl")
    with pytest.raises(InputError, match=r"train\.jsonl.*regular"):
        FileSource("data").rows()


def test_classes_are_still_found_by_name_and_path(folder):
    assert isinstance(parse("train", "RegisterPrograms", "option").sources["train"], RegisterPrograms)
    assert isinstance(parse("val", "nrt_lightning.RegisterPrograms", "yaml").sources["val"], RegisterPrograms)
    assert isinstance(parse("test", f"{__name__}.WordSource", "option").sources["test"], WordSource)


def test_a_misspelled_source_is_named(folder, tokenizer_dir):
    data = parse("train", "RegisterProgams", "option")
    data.tokenizer = tokenizer_dir
    with pytest.raises(InputError, match=r"'RegisterProgams'.*'RegisterPrograms'"):
        data.setup()


@pytest.mark.parametrize("text", ["a.csv", "a/b", "gsm8k", "./X", "org/Name.v1", "my data", "pkg.rows"])
def test_paths_and_hub_names_are_no_classes(text):
    assert is_data_path(text)


@pytest.mark.parametrize("value", ["RegisterPrograms", "my_package.sources.Squares", "", None, 3, {"class_path": "X"}])
def test_what_may_be_a_class_is_no_path(value):
    assert not is_data_path(value)


def test_no_argument_reads_a_path_that_may_stand_beside_a_class():
    """A union of text and class without a path type would be read by the parser."""
    found = []
    for name in nrt_lightning.__all__:
        kind, parser = getattr(nrt_lightning, name), ArgumentParser()
        if not inspect.isclass(kind):
            continue
        try:
            parser.add_class_arguments(kind, "x", sub_configs=True)
        except ValueError:
            continue
        for action in parser._actions:
            type_ = getattr(action, "_typehint", None)
            if getattr(action, "_enable_path", False) and get_origin(type_) in (Union, UnionType):
                found += [f"{name}.{action.dest}"] if str in type_.__args__ else []
    assert found == []
    assert len(nrt_lightning.__all__) > 50
