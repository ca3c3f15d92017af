import csv
import json

import datasets
import pytest

from nrt_lightning.data import FileSource, Messages, QuestionAnswer
from nrt_lightning.errors import InputError

RECORDS = [{"question": f"line one\nof {n} \u2028\u00e9?", "answer": f'"{n}", or more'} for n in range(5)]


@pytest.fixture(autouse=True)
def local_only(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write(path, form):
    if form == "jsonl":
        path.write_text("\n\n".join(json.dumps(r, ensure_ascii=False) for r in RECORDS), encoding="utf-8")
    elif form == "json":
        path.write_text(json.dumps(RECORDS, indent=1), encoding="utf-8-sig")
    elif form in ("csv", "tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(RECORDS[0]), delimiter="\t" if form == "tsv" else ",")
            writer.writeheader()
            writer.writerows(RECORDS)
    elif form == "parquet":
        datasets.Dataset.from_list(RECORDS).to_parquet(path)
    elif form == "directory":
        datasets.Dataset.from_list(RECORDS).save_to_disk(path)
    elif form == "splits":
        train = datasets.Dataset.from_list(RECORDS)
        datasets.DatasetDict({"train": train, "test": train.select([4])}).save_to_disk(path)


FORMS = {
    "jsonl": ("d.jsonl", [":1", ":3", ":5"]),
    "json": ("d.json", [":2", ":6", ":10"]),
    "csv": ("d.csv", [":2", ":4", ":6"]),
    "tsv": ("d.tsv", [":2", ":4", ":6"]),
    "parquet": ("d.parquet", [":row 1", ":row 2", ":row 3"]),
    "directory": ("d", [":row 1", ":row 2", ":row 3"]),
    "splits": ("d", [":row 1", ":row 2", ":row 3"]),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_rows_in_order(tmp_path, form, capfd):
    name, lines = FORMS[form]
    path = tmp_path / name
    write(path, form)
    rows = FileSource(str(path)).rows()
    assert [{"question": row.question, "answer": row.answer} for row in rows] == RECORDS
    assert [row.id for row in rows] == list("01234")
    assert [row.origin for row in rows[:3]] == [f"{path}{line}" for line in lines]
    assert [row.id for row in FileSource(str(path), max_rows=2).rows()] == ["0", "1"]


def test_split_of_a_directory(tmp_path):
    write(tmp_path / "d", "splits")
    assert [row.answer for row in FileSource(str(tmp_path / "d"), split="test").rows()] == [RECORDS[4]["answer"]]
    with pytest.raises(InputError, match=r"'tst'.*'test'.*`split`"):
        FileSource(str(tmp_path / "d"), split="tst").rows()


def test_directory_of_data_files(tmp_path):
    (tmp_path / "d").mkdir()
    write(tmp_path / "d" / "train.jsonl", "jsonl")
    assert [row.answer for row in FileSource(str(tmp_path / "d")).rows()] == [r["answer"] for r in RECORDS]


def test_messages_from_parquet_are_plain_lists(tmp_path):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    datasets.Dataset.from_list([{"id": "x", "messages": turns}]).to_parquet(tmp_path / "d.parquet")
    [row] = FileSource(str(tmp_path / "d.parquet"), Messages()).rows()
    assert (row.id, row.messages, row.answer) == ("x", turns[:1], "a")


def test_json_lines_under_the_name_of_json(tmp_path):
    path = tmp_path / "d.json"
    path.write_text('\n{"question": "q", "answer": "a"}\n')
    assert FileSource(str(path)).rows()[0].origin == f"{path}:2"


def test_long_csv_fields_are_read_whole_and_the_limit_is_put_back(tmp_path):
    path, before = tmp_path / "d.csv", csv.field_size_limit(1000)
    path.write_text("question,answer\nq," + "x" * 200_000 + "\n")
    assert len(FileSource(str(path)).rows()[0].answer) == 200_000
    assert csv.field_size_limit(before) == 1000


def test_hub_name_goes_to_the_library(monkeypatch):
    asked = []

    def load_dataset(path, name=None, split=None, revision=None):
        asked.append((path, name, split, revision))
        return datasets.Dataset.from_list(RECORDS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = FileSource("org/data", split="test", name="main", revision="abc", max_rows=2)
    assert [row.origin for row in source.rows()] == ["org/data:row 1", "org/data:row 2"]
    assert asked == [("org/data", "main", "test", "abc")]


def test_unreachable_hub_name(monkeypatch):
    def load_dataset(*args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(InputError, match=r"'org/data'.*'train'.*no route.*split"):
        FileSource("org/data").rows()


GOOD = '{"question": "q", "answer": "a"}\n'


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("d.jsonl", GOOD + "{'question': 1}\n", [":2, column 2", "JSON", "double quotes"]),
        ("d.jsonl", GOOD + '["q", "a"]\n', [":2", "got list", '{"question"']),
        ("d.jsonl", GOOD.encode() + b'{"question": "\xe9"}', [":2", "UTF-8", "0xe9"]),
        ("d.jsonl", GOOD + '{"question": "q", "answer": true}\n', [":2, column 'answer'", "bool (True)"]),
        ("d.jsonl", GOOD + '{"question": "q", "anwser": "3"}\n', [":2", "no column 'answer'", "'anwser'"]),
        ("d.jsonl", "", ["no rows"]),
        ("d.json", "[" + GOOD + "," + '\n{"question": }]', [":3, column 14", "JSON"]),
        ("d.json", "[" + GOOD + GOOD + "]", [":2", "','", "']'"]),
        ("d.json", "[" + GOOD + ",", [":2", "JSON"]),
        ("d.json", "[" + GOOD, [":2", "','", "']'"]),
        ("d.json", "[" + GOOD + "]\n[]", [":2", "list"]),
        ("d.json", "[" + GOOD + ",\n\n3]", [":4", "got int"]),
        ("d.json", "12", [":1", "list"]),
        ("d.json", "[]", ["no rows"]),
        ("d.csv", 'question,answer\n"a\nb",c\nd,e,f\n', [":4", "more fields", "2 columns"]),
        ("d.csv", "question,answer\na,b\nc\n", [":3", "fewer fields", "2 columns"]),
        ("d.csv", 'question,answer\na,b\nc,"d\n', [":3", "CSV", "quotes"]),
        ("d.csv", "question,answer\na,b\nc,\n", [":3, column 'answer'", "empty"]),
        ("d.csv", b"question,answer\na,b\n\xff,c\n", [":3", "UTF-8"]),
        ("d.csv", "\n\nquestion,answer\n\n\n\na,b\n\nc\n", [":9", "fewer fields", "2 columns"]),
        ("d.csv", 'question,answer\n\n\na,b\n\nc,"d\n', [":6", "CSV", "quotes"]),
        ("d.csv", "question,answer\na,b\n".encode("utf-16-le"), [":1", "UTF-16", "UTF-8"]),
        ("d.jsonl", GOOD.encode("utf-16-le"), [":1", "UTF-16", "UTF-8"]),
        ("d.json", GOOD.encode("utf-16-be"), [":1", "UTF-16", "UTF-8"]),
        ("d.json", '\n{\n "data": [\n' + GOOD + "]\n}\n", [":2", "list of objects in 'data'", "list alone"]),
        ("d.json", '{\n"question": "q",\n"answer": "a"\n}\n{\n}', [":1", "several lines", "[{"]),
        ("d.json", '{"question": ["q"],\n"answer": []}', [":1", "several lines. Write", "[{"]),
        ("d.csv", "question,answer,question\na,b,c\n", [":2", "column 'question' stands twice"]),
        ("d.csv", "question;answer\na, or b;c\n", [":1", "';'", "commas"]),
        ("d.csv", "question\tanswer\na\tc\n", [":1", "'\\t'", ".tsv"]),
        ("d.tsv", "question,answer\na,c\n", [":1", "','", ".tsv file with tabs"]),
        ("d.parquet", "no parquet", ["arquet"]),
        ("d.jsnl", GOOD, ["'.jsnl'", "'.jsonl'"]),
    ],
)
def test_bad_files_name_file_line_column_and_fix(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as error:
        FileSource(str(path)).rows()
    for word in [str(path), *words]:
        assert word in str(error.value)


def test_a_file_of_one_column_may_hold_any_text(tmp_path):
    (tmp_path / "d.csv").write_text("question\na; b\n")
    rows = FileSource(str(tmp_path / "d.csv"), require_answers=False).rows()
    assert [row.question for row in rows] == ["a; b"]


def test_bad_rows_are_counted(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text(GOOD + '{"question": "q", "answer": ""}\n' * 3 + GOOD)
    with pytest.raises(InputError, match=r"d.jsonl:2, column 'answer'.*3 .*rows of 5"):
        FileSource(str(path)).rows()


def test_missing_files_name_what_is_there(tmp_path):
    write(tmp_path / "train.jsonl", "jsonl")
    with pytest.raises(InputError, match=r"trian.jsonl: .*'train.jsonl'"):
        FileSource(str(tmp_path / "trian.jsonl")).rows()
    with pytest.raises(InputError, match=r"no directory '.*nowhere'"):
        FileSource(str(tmp_path / "nowhere" / "train.jsonl")).rows()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"'.*empty' .*no data files"):
        FileSource(str(tmp_path / "empty" / "train.jsonl")).rows()
    with pytest.raises(InputError, match=r"^train_typo.jsonl: "):
        FileSource("train_typo.jsonl").rows()  # never taken for a hub name


def test_foreign_directory(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "state.json").write_text("{}")
    with pytest.raises(InputError, match=r"d: .*dataset directory.*save_to_disk"):
        FileSource(str(tmp_path / "d")).rows()


def test_bad_settings():
    with pytest.raises(InputError, match="max_rows=0"):
        FileSource("d.jsonl", max_rows=0)
    with pytest.raises(InputError, match="path=''"):
        FileSource("")


def test_rows_without_answers_for_prediction(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text('{"q": "1"}\n')
    [row] = FileSource(str(path), QuestionAnswer("q"), require_answers=False).rows()
    assert row.answer is None


@pytest.mark.parametrize("name", ["d.jsonl", "d.json"])
def test_numbers_of_json_keep_the_digits_of_the_file(tmp_path, name):
    path = tmp_path / name
    records = ['{"question": "q", "answer": ' + number + "}" for number in ("3.10", "3.0", "1e5", "12", "-0.50")]
    path.write_text("\n".join(records) if name == "d.jsonl" else f"[{', '.join(records)}]")
    assert [row.answer for row in FileSource(str(path)).rows()] == ["3.10", "3.0", "1e5", "12", "-0.50"]


def test_a_number_of_too_many_digits_names_its_line(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text('{"question": "q", "answer": ' + "1" * 5000 + "}\n")
    with pytest.raises(InputError, match=r"d\.jsonl:1.*digits"):
        FileSource(str(path)).rows()


def test_empty_lines_of_csv_are_no_records(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("\n\nquestion,answer\n\na,b\n\n\nc,d\n")
    assert [(row.answer, row.origin) for row in FileSource(str(path)).rows()] == [
        ("b", f"{path}:5"),
        ("d", f"{path}:8"),
    ]


def test_white_space_around_names_of_csv_columns(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("question , answer\na?,b\n")
    assert FileSource(str(path)).rows()[0].answer == "b"
    path.write_text("question,answer, answer\na?,b,c\n")  # would make two of one name
    assert FileSource(str(path), QuestionAnswer(answer=" answer")).rows()[0].answer == "c"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.tsv", 'question\tanswer\na?\t1\n"b?\t2\nc?\t3\nend"\t4\n'),
        ("d.csv", 'question,answer\na?,1\nb?,"2\nc?,3"\n'),
    ],
)
def test_rows_that_a_quote_joined_are_counted(tmp_path, caplog, name, content):
    (tmp_path / name).write_text(content)
    assert len(FileSource(str(tmp_path / name)).rows()) == 2
    assert f"{name}: 1 records hold a text of several lines that read like records, first: line 3" in caplog.text


def test_texts_of_several_lines_are_not_taken_for_joined_rows(tmp_path, caplog):
    path = tmp_path / "d.csv"
    path.write_text('question,answer\n"a?\nb, or c?","First, d, then e:\nf.\n"\n')
    assert FileSource(str(path)).rows()[0].question == "a?\nb, or c?"
    assert not caplog.records
