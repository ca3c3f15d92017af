"""Directories of data files: which files are read for a split, as the same files alone."""

import json
import os

import pytest

from nrt_lightning.data import FileSource
from nrt_lightning.errors import InputError

WRITTEN = ["007", "3.10", "1e5", "12", "NA", "None", "True", "2024-01-01"]  # texts that a reader could take for others


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.load_dataset", lambda *args, **settings: pytest.fail("infers types"))


def write(name, answer="a"):
    os.makedirs(os.path.dirname(name), exist_ok=True)
    with open(name, "w") as file:
        if name.endswith("jsonl"):
            file.write(json.dumps({"question": "q", "answer": answer}) + "\n")
        else:
            file.write(f"question,answer\nq,{answer}\n")


def origins(split="train", path="d"):
    return [row.origin for row in FileSource(path, split=split).rows()]


def test_a_file_in_a_directory_is_read_as_it_is_alone():
    write("d/train.csv", "\nq,".join(WRITTEN))
    inside, alone = FileSource("d").rows(), FileSource("d/train.csv").rows()
    assert inside == alone
    assert [row.answer for row in inside] == WRITTEN


def test_files_of_all_types_are_read_in_the_order_of_their_paths():
    for name in ("d/b.csv", "d/a.jsonl", "d/sub/deep/c.csv", "d/.hidden.csv", "d/.git/x.csv", "d/dataset_infos.json"):
        write(name)
    assert origins() == ["d/a.jsonl:1", "d/b.csv:2", "d/sub/deep/c.csv:2"]
    with pytest.raises(InputError, match=r"^d: no split 'test'.*'train'.*`split`"):
        origins("test")


def test_names_of_files_and_of_folders_inside_say_the_split():
    names = ("Train-00000-of-00001", "sums_dev", "test/part.2", "val/train", "contest/valid")
    for name in names:
        write(f"test-bank/{name}.csv")
    assert origins("train", "test-bank") == ["test-bank/Train-00000-of-00001.csv:2", "test-bank/val/train.csv:2"]
    assert origins("validation", "test-bank") == ["test-bank/contest/valid.csv:2", "test-bank/sums_dev.csv:2"]
    assert origins("test", "test-bank") == ["test-bank/test/part.2.csv:2"]


@pytest.mark.parametrize("other", ["extra.csv", "train_and_test.csv", "sub/more.jsonl"])
def test_a_file_of_no_split_beside_files_of_splits_is_named(other):
    for name in ("train.csv", other):
        write(f"d/{name}")
    with pytest.raises(InputError, match=f"^d: .*'{other}'.*validation"):
        origins()


def test_files_of_other_types_are_named_in_a_warning(caplog):
    for name in ("d/train.csv", "d/more.xlsx", "d/old/rows.jsonl.gz", "d/README.md"):
        write(name)
    assert origins() == ["d/train.csv:2"]
    [record] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "2 files are not read: 'more.xlsx', 'old/rows.jsonl.gz'" in record.getMessage()


@pytest.mark.parametrize("name", ["data.arrow", "train.jsonl.gz", "rows.txt"])
def test_a_directory_without_readable_files_names_what_is_there(name):
    write(f"d/{name}")
    with pytest.raises(InputError, match=rf"^d: no data files, but '{name}'.*\.jsonl"):
        origins()


def test_links_are_followed_but_in_no_circle():
    write("elsewhere/rows.csv")
    os.mkdir("d")
    os.symlink("../elsewhere", "d/train")
    os.symlink("../d", "d/again")
    assert origins() == ["d/train/rows.csv:2"]


def test_a_file_that_cannot_be_read_is_named():
    write("d/a.csv")
    os.symlink("nowhere.csv", "d/b.csv")
    with pytest.raises(InputError, match=r"^d/b\.csv: cannot be read"):
        origins()
