"""Files, paths and rows that are damaged, hostile or meant otherwise: refused with their place, or counted and said."""

import gzip
import json
import logging
import os
import socket
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from nrt_lightning.data import FileSource, MemorySource, Messages, PlainTemplate, PromptEncoder, QADataModule, QASource
from nrt_lightning.data.compression import FREE
from nrt_lightning.errors import InputError
from nrt_lightning.structures import Row

GOOD = '{"question": "q", "answer": "a"}\n'


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.load_dataset", lambda *args, **settings: pytest.fail("looked up on the hub"))


def file(name, content):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return name


def jsonl(record):
    """A file whose second line holds a record."""
    return lambda: file("d.jsonl", GOOD + record + "\n")


def listed(record):
    """A list whose second record begins in line 3."""
    return lambda: file("d.json", f"[{GOOD},\n{record}]")


def table(damage=lambda data: data, **settings):
    """A Parquet file of 3,000 rows, damaged."""

    def make():
        columns = {"question": [f"{n} + 1?" * 9 for n in range(3000)], "answer": [str(n + 1) for n in range(3000)]}
        pyarrow.parquet.write_table(pyarrow.table(columns), "d.parquet", **{"data_page_size": 2000} | settings)
        return file("d.parquet", damage(Path("d.parquet").read_bytes()))

    return make


def columns(*values, names=("question", "answer"), **settings):
    def make():
        arrays = [value if isinstance(value, pyarrow.Array) else pyarrow.array(value) for value in values]
        pyarrow.parquet.write_table(pyarrow.Table.from_arrays(arrays, names=list(names)), "d.parquet", **settings)
        return "d.parquet"

    return make


def scrambled(data):
    middle = len(data) // 3
    return data[:middle] + bytes(byte ^ 0x5A for byte in data[middle : middle + 300]) + data[middle + 300 :]


def flipped(data):
    middle = len(data) // 3
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def bomb():
    text = pyarrow.array(["q" * (FREE + 1)] * 2)
    return columns(text, ["1", "2"], compression="zstd")()


def link(name, target):
    os.symlink(target, name)
    return name


def loop_of_two():
    link("a.csv", "b.csv")
    return link("b.csv", "a.csv")


def fifo(name):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(name)
    return name


def bound_socket():
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("s.jsonl")
    return "s.jsonl"


def beside(*names, given):
    def make():
        for name in names:
            file(name, "question,answer\nq,a\n")
        return given

    return make


NOT_UTF8 = pyarrow.array([b"ok", b"\xff\xfe"], type=pyarrow.binary()).view(pyarrow.string())

REFUSED = {
    # lone surrogates
    "a surrogate in a question": (
        jsonl(r'{"question": "q\ud800", "answer": "a"}'),
        ["d.jsonl:2", "'question'", "ud800"],
    ),
    "a surrogate in an answer": (jsonl(r'{"question": "q", "answer": "a\udfff"}'), ["d.jsonl:2", "'answer'", "udfff"]),
    "a surrogate in an id": (
        jsonl(r'{"id": "\ud9ab", "question": "q", "answer": "a"}'),
        ["d.jsonl:2", "'id'", "ud9ab"],
    ),
    "a surrogate in a list": (listed(r'{"question": "\ud800", "answer": "a"}'), ["d.json:3", "'question'", "ud800"]),
    "two halves in the wrong order": (jsonl(r'{"question": "\udc00\ud800", "answer": "a"}'), ["d.jsonl:2", "udc00"]),
    "bytes that are a surrogate": (lambda: file("d.jsonl", b'{"question": "\xed\xa0\x80"}'), ["d.jsonl:1", "0xed"]),
    # numbers
    "an integer of 5,000 digits": (
        jsonl('{"question": "q", "answer": %s}' % ("1" * 5000)),
        ["d.jsonl:2", "4300 digits"],
    ),
    "a negative one in a list": (listed('{"question": "q", "answer": -%s}' % ("1" * 5000)), ["d.json:3", "digits"]),
    "one in another column": (jsonl('{"question": "q", "answer": 1, "n": %s}' % ("1" * 5000)), ["d.jsonl:2", "digits"]),
    "a float of 5,000 digits": (
        jsonl('{"question": "q", "answer": %s.0}' % ("1" * 5000)),
        ["d.jsonl:2", "'answer'", "111"],
    ),
    "a float beyond the range": (jsonl('{"question": "q", "answer": 1e999}'), ["d.jsonl:2", "'answer'", "1e999"]),
    "NaN": (jsonl('{"question": "q", "answer": NaN}'), ["d.jsonl:2", "'answer'", "nan"]),
    "infinity": (listed('{"question": "q", "answer": -Infinity}'), ["d.json:3", "'answer'", "-inf"]),
    # nesting and encodings
    "100,000 brackets": (lambda: file("d.jsonl", "[" * 100_000), ["d.jsonl:1", "brackets"]),
    "100,000 braces": (lambda: file("d.json", "[" + '{"a":' * 100_000), ["d.json:1", "brackets"]),
    "UTF-16": (lambda: file("d.jsonl", GOOD.encode("utf-16")), ["d.jsonl:1", "UTF-8", "0xff"]),
    "a table in UTF-16": (lambda: file("d.csv", "question,answer\nq,a\n".encode("utf-16")), ["d.csv:1", "UTF-8"]),
    "Latin-1 in a late line": (
        lambda: file("d.csv", b"question,answer\n" + b"q,a\n" * 9 + b"\xe9,a\n"),
        ["d.csv:11", "0xe9"],
    ),
    # columns
    "a column twice in a table": (
        lambda: file("d.csv", "question,answer,answer\nq,1,2\n"),
        ["d.csv:2", "'answer'", "twice"],
    ),
    "a column twice in a TSV": (
        lambda: file("d.tsv", "question\tquestion\tanswer\nq\tr\t2\n"),
        ["d.tsv:2", "'question'", "twice"],
    ),
    "a key twice in a line": (
        jsonl('{"question": "q", "answer": "a", "answer": "b"}'),
        ["d.jsonl:2", "'answer'", "twice"],
    ),
    "a key twice in a list": (
        listed('{"question": "q", "question": "q", "answer": "b"}'),
        ["d.json:3", "'question'", "twice"],
    ),
    "an id twice": (jsonl('{"id": 1, "id": 2, "question": "q", "answer": "b"}'), ["d.jsonl:2", "'id'", "twice"]),
    "a column twice in Parquet": (
        columns(["q"], ["1"], ["2"], names=["question", "answer", "answer"]),
        ["d.parquet:row 1", "'answer'", "twice"],
    ),
    "names that are empty": (lambda: file("d.csv", ",\nq,a\n"), ["d.csv:2", "'question'"]),
    # paths
    "a name of 5,000 characters": (lambda: "x" * 5000 + ".jsonl", ["xxx...", "too long"]),
    "a path of 6,000 characters": (lambda: "/".join(["x" * 100] * 60) + "/d.jsonl", ["xxx...", "too long"]),
    "a hub name of 5,000 characters": (lambda: "a/" + "x" * 5000, ["a/xxx", "too long"]),
    "a null character": (lambda: "a\0b.jsonl", ["a\\x00b.jsonl", "null character"]),
    "a null character in a hub name": (lambda: "a/\0b", ["a/\\x00b", "null character"]),
    "a surrogate in a path": (lambda: "a\ud800.jsonl", ["a\\ud800.jsonl", "no path"]),
    # what is no file
    "a pipe": (lambda: fifo("f.jsonl"), ["f.jsonl", "regular"]),
    "a pipe of Parquet": (lambda: fifo("f.parquet"), ["f.parquet", "regular"]),
    "a pipe in a directory": (lambda: fifo("d/train.jsonl") and "d", ["d/train.jsonl", "regular"]),
    "a pipe deep inside": (lambda: fifo("d/data/train.jsonl") and "d", ["d/data/train.jsonl", "regular"]),
    "an endless device": (lambda: "/dev/zero", ["/dev/zero", "regular"]),
    "an empty device": (lambda: "/dev/null", ["/dev/null", "regular"]),
    "a link to a device": (lambda: link("z.jsonl", "/dev/zero"), ["z.jsonl", "regular"]),
    "a socket": (bound_socket, ["s.jsonl", "regular"]),
    "a link to itself": (lambda: link("l.jsonl", "l.jsonl"), ["l.jsonl", "symbolic link"]),
    "a circle of links": (loop_of_two, ["b.csv", "symbolic link to 'a.csv'"]),
    "a link to nothing": (lambda: link("l.jsonl", "nowhere.jsonl"), ["l.jsonl", "'nowhere.jsonl'"]),
    "memory of a process": (lambda: link("m.jsonl", "/proc/self/mem"), ["m.jsonl", "cannot be read"]),
    # addresses
    "a page": (lambda: "https://example.com/d.jsonl", ["https://example.com/d.jsonl", "URL"]),
    "a page without encryption": (lambda: "http://127.0.0.1/d", ["http://127.0.0.1/d", "URL"]),
    "a bucket": (lambda: "s3://bucket/d.parquet", ["s3://bucket/d.parquet", "URL"]),
    "a file as a URL": (lambda: "file:///etc/passwd", ["file:///etc/passwd", "URL"]),
    "the hub as a URL": (lambda: "hf://datasets/a/b", ["hf://datasets/a/b", "URL"]),
    # names that look like those of the hub
    "a misspelled file without its ending": (
        beside("data/dates.csv", given="data/dates"),
        ["data/dates", "'dates.csv'"],
    ),
    "a misspelled directory": (beside("data/dates/train.csv", given="data/dats"), ["data/dats", "'dates'"]),
    "nothing similar": (beside("data/x.txt", given="data/dates"), ["data/dates", "no data files"]),
    # Parquet
    "a scrambled page": (table(scrambled, compression="gzip"), ["d.parquet:row"]),
    "a scrambled page of another codec": (table(scrambled, compression="snappy"), ["d.parquet"]),
    "a flipped bit": (table(flipped, write_page_checksum=True, compression="none"), ["d.parquet:row", "CRC"]),
    "half of a file": (table(lambda data: data[: len(data) // 2]), ["d.parquet", "Parquet"]),
    "an empty file": (table(lambda data: b""), ["d.parquet", "0 bytes"]),
    "the end alone": (table(lambda data: data[-2000:]), ["d.parquet", "Parquet"]),
    "zeros at the end": (table(lambda data: data[:-8] + bytes(8)), ["d.parquet", "Parquet"]),
    "a footer that is scrambled": (table(lambda data: data[:-60] + bytes(52) + data[-8:]), ["d.parquet", "Parquet"]),
    "texts that are no UTF-8": (columns(NOT_UTF8, ["1", "2"]), ["d.parquet:row 2", "0xff"]),
    "bytes instead of texts": (columns(["q"], [b"\xff"]), ["d.parquet:row 1", "'answer'", "bytes"]),
    # compression
    "Parquet that decompresses far": (bomb, ["d.parquet", "decompress to", "200"]),
    "gzip in a directory": (
        lambda: file("d/t.jsonl.gz", gzip.compress(GOOD.encode())) and "d",
        ["d: no data files", "'t.jsonl.gz'", ".jsonl"],
    ),
    "gzip under another name": (lambda: file("d.jsonl", gzip.compress(GOOD.encode())), ["d.jsonl:1", "0x8b"]),
    # other kinds of files
    "code": (lambda: file("evil.py", "open('ran', 'w')"), ["evil.py", "'.py'"]),
    "a pickle": (lambda: file("d.pkl", b"cos\nsystem\n(S'touch ran'\ntR."), ["d.pkl", "'.pkl'"]),
    "a spreadsheet": (lambda: file("d.xlsx", b"PK"), ["d.xlsx", "'.xlsx'"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_files_are_refused_with_their_place(name):
    make, words = REFUSED[name]
    path = make()
    with pytest.raises(InputError) as error:
        FileSource(path).rows()
    message = str(error.value)
    for word in words:
        assert word in message
    assert "\n" not in message
    assert len(message) < 500
    assert not Path("ran").exists()


def test_a_file_without_permission_is_named(monkeypatch):
    def refuse(self, *args, **settings):
        raise PermissionError(13, "Permission denied", str(self))

    path = file("d.jsonl", GOOD)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"d\.jsonl.*Permission denied"):
        FileSource(path).rows()


TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
IN_MEMORY = {
    "a surrogate in a row": (Row("0", [{"role": "user", "content": "\ud800"}], "a", "x:7"), None, ["x:7", "ud800"]),
    "a surrogate in its answer": (Row("0", TURNS[:1], "\ud800", "x:7"), None, ["x:7", "answer", "ud800"]),
    "a surrogate in a turn": (
        {"messages": [{"role": "user", "content": "\udc00"}, TURNS[1]]}, Messages(), ["row 1", "messages[0]", "udc00"]
    ),
    "an answer of 5,000 digits": ({"question": "q", "answer": 10**5000}, None, ["row 1", "'answer'", "digits"]),
    "a question of 5,000 digits": ({"question": 10**5000, "answer": "a"}, None, ["row 1", "'question'", "digits"]),
    "an id of 5,000 digits": ({"question": "q", "answer": "a", "id": 10**5000}, None, ["row 1", "'id'", "digits"]),
    "a role of 5,000 digits": (
        {"messages": [{"role": 10**5000, "content": "q"}, TURNS[1]]}, Messages(), ["turn 1", "role", "digits"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_MEMORY)
def test_hostile_rows_are_refused_with_their_place(name):
    record, form, words = IN_MEMORY[name]
    with pytest.raises(InputError) as error:
        MemorySource([record], format=form).rows()
    for word in words:
        assert word in str(error.value)


def test_a_surrogate_of_any_source_is_refused(char_tokenizer):
    row = Row("0", [{"role": "user", "content": "a\udc80"}], "a", "own:1")
    with pytest.raises(InputError, match=r"own:1.*udc80"):
        PromptEncoder(char_tokenizer, PlainTemplate()).encode([row])


def test_whole_characters_beyond_the_first_plane_are_read():
    path = jsonl(r'{"question": "q\ud83d\ude00", "answer": "😀\u0000"}')()
    row = FileSource(path).rows()[1]
    assert (row.question, row.answer) == ("q😀", "😀\0")


def test_links_that_lead_somewhere_are_read():
    file("data/d.jsonl", GOOD)
    link("l.jsonl", "data/d.jsonl")
    assert FileSource("l.jsonl").rows()[0].answer == "a"


def test_long_texts_that_compress_well_are_read():
    text = "one two three " * 50_000
    path = columns([text] * 3, ["1", "2", "3"])()
    assert [row.question for row in FileSource(path).rows()] == [text] * 3


def test_a_name_of_the_hub_is_still_looked_up(monkeypatch):
    asked = []
    monkeypatch.setattr("datasets.load_dataset", lambda *args, **settings: asked.append(args[0]) or [json.loads(GOOD)])
    FileSource("elsewhere/dates").rows()
    os.mkdir("data")
    FileSource("data/dates", revision="main").rows()
    assert asked == ["elsewhere/dates", "data/dates"]


def question(text, answer, row_id="", origin=""):
    return Row(row_id or origin, [{"role": "user", "content": text}], answer, origin)


class Given(QASource):
    def __init__(self, rows):
        self.given = rows

    def rows(self):
        return self.given


PLAIN = [question(f"{n}+1?", str(n + 1), origin=f"f:{n}") for n in range(5)]
SAID = {
    "ids that are the same": (
        [question("a", "1", "x", "f:10"), question("b", "2", "x", "f:11"), question("c", "3", "x", "f:12")],
        ["train: 2 rows have the id of another row", "f:11 ('x' as in f:10)", "f:12"],
    ),
    "answers that differ": (
        [question("a", "1", origin="f:10"), question("a", "2", origin="f:11"), question("a", " 1", origin="f:12")],
        ["train: 1 rows have the question of another row, and another answer", "f:11 ('2', but '1' in f:10)"],
    ),
    "an answer of unknown tokens": (
        [question("a", "\u65e5\u672c", origin="f:10")], ["train: 1 rows have", "does not know: f:10"]
    ),
    "a question of unknown tokens": (
        [question("\u65e5 \u672c", "1", origin="f:10"), question("\u65e5", "1", origin="f:11")],
        ["train: 2 rows have", "does not know: f:10, f:11"],
    ),
    "control text": ([question("a</s>b", "1", origin="f:10")], ["train: 1 rows hold text that is a control", "f:10"]),
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
def test_rows_that_are_probably_meant_otherwise_are_counted_and_said(name, caplog, tokenizer_dir):
    rows, words = SAID[name]
    data = QADataModule(train=Given(PLAIN + rows), tokenizer=tokenizer_dir)
    with caplog.at_level(logging.WARNING):
        data.setup("fit")
    assert len(data.encoded["train"]) == len(PLAIN) + len(rows), "they are kept"
    for word in words:
        assert word in caplog.text


def test_nothing_is_said_of_rows_as_they_should_be(caplog, tokenizer_dir):
    mixed = [question("a\u65e5", "\u65e5b", origin="f:20"), question("A", "1", origin="f:21")]
    QADataModule(train=Given(PLAIN + mixed), tokenizer=tokenizer_dir).setup("fit")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_columns_that_are_not_read_may_stand_twice_and_this_is_said(caplog):
    file("d.csv", "question,answer,note,note\nq,a,1,2\nr,b,3,4\n")
    assert [row.answer for row in FileSource("d.csv").rows()] == ["a", "b"]
    assert "d.csv: 1 columns that are not read stand twice, first: 'note' (d.csv:2)" in caplog.text
