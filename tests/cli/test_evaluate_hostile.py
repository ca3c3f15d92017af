"""What a user may give `nrt-lightning evaluate`: one line that names it before compute is spent, or a right result."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nrt_lightning import InputError
from nrt_lightning.cli.main import main, run
from nrt_lightning.cli.user_errors import input_error
from nrt_lightning.evaluation import Questionnaire
from nrt_lightning.tools.evaluation import Results

MODEL = ["embedded:registers-base", "--max_trace_tokens=4", "--max_answer_tokens=4", "--batch_size=2"]
GOOD = [
    {"question": "a4b*2c+2d+3?dc:", "answer": "d3,c0"},
    {"question": "b1c+1d*3?dc:", "answer": "d0,c2"},
    {"question": "a2b+1c*2?c:", "answer": "c1"},
]
ROWS, FIGURES = Path("evaluation.rows.jsonl"), Path("evaluation.json")


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(name: str, contents: str | bytes) -> None:
    Path(name).write_bytes(contents if isinstance(contents, bytes) else contents.encode())


def evaluate(*options: str) -> None:
    run(["evaluate", *MODEL, *options])


@pytest.fixture(autouse=True)
def questions() -> None:
    write("q.jsonl", lines(GOOD))


@pytest.fixture
def no_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the test if a question is answered."""
    monkeypatch.setattr(Questionnaire, "answer", lambda *args: pytest.fail("compute was spent"))


def refused(words: str, capsys: pytest.CaptureFixture[str], *options: str) -> None:
    """Evaluate; the command must end with one line of these words, and leave all files as they are."""
    before = everything()
    with pytest.raises((ValueError, SystemExit)) as caught:
        evaluate(*options)
    parsed = isinstance(caught.value, SystemExit)
    message = capsys.readouterr().err.strip() if parsed else input_error(caught.value)
    assert message is not None, caught.value
    assert "\n" not in message
    assert all(word in message for word in words.split(" & ")), message
    assert everything() == before


def everything() -> dict[str, Any]:
    return {str(path): path.read_bytes() if path.is_file() else path.lstat().st_mode for path in Path().rglob("*")}


LONE = '{"question": "a4b", "answer": "\\ud800"}\n'
FILES: dict[str, tuple[str, str | bytes | list[Any], str]] = {  # name, contents, words of the error
    "empty": ("u.csv", "", "u.csv & no rows"),
    "header alone": ("u.csv", "question,answer\n", "u.csv & no rows"),
    "binary": ("u.jsonl", bytes(range(256)), "u.jsonl:1"),
    "no Parquet": ("u.parquet", bytes(range(256)), "u.parquet & Parquet"),
    "UTF-16": ("u.csv", "question,answer\na,b\n".encode("utf-16"), "u.csv:1 & UTF-8"),
    "no column": ("u.csv", "question,anser\na4b,d3\n", "u.csv:2 & 'anser' & Set `answer` of `format`"),
    "two columns": ("u.csv", "question,answer,answer\na4b,d3,d4\n", "u.csv:2 & 'answer' stands twice"),
    "ragged": ("u.csv", "question,answer\na4b,d3\nb1c,d,e\n", "u.csv:3 & more fields"),
    "broken line": ("u.jsonl", lines(GOOD) + '{"question": "a4b", "ans\n' + lines(GOOD), "u.jsonl:4 & not valid JSON"),
    "NaN": ("u.jsonl", '{"question": "a4b", "answer": NaN}\n', "u.jsonl:1 & 'answer' & nan"),
    "null": ("u.jsonl", [*GOOD, {"question": "a4b", "answer": None}], "u.jsonl:4 & 'answer'"),
    "list": ("u.jsonl", [*GOOD, {"question": "a4b", "answer": ["d3"]}], "u.jsonl:4 & 'answer' & a list"),
    "empty answer": ("u.jsonl", [{"question": "a4b", "answer": " "}], "u.jsonl:1 & empty"),
    "half a character": ("u.jsonl", LONE, "u.jsonl:1 & ud800"),
    "long answer": ("u.jsonl", [*GOOD, {"question": "a4b", "answer": "d3," * 5000}], "u.jsonl:4 & 15001 & 256"),
    "long question": ("u.jsonl", [{"question": "a4b" * 5000, "answer": "d3"}], "u.jsonl:1 & its prompt"),
    "no answers": ("u.jsonl", [{"question": "a4b"}] * 3, "u.jsonl:1 & 'answer' & first of 3"),
    "unknown kind": ("u.txt", "a4b\n", "u.txt & '.txt'"),
}


def test_ctrl_c_says_that_the_same_command_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer, batches = Questionnaire.answer, []

    def interrupted(self: Questionnaire, *args: Any) -> Any:
        batches.append(args)
        if len(batches) == 2:
            raise KeyboardInterrupt
        return answer(self, *args)

    monkeypatch.setattr(Questionnaire, "answer", interrupted)
    monkeypatch.setattr("sys.argv", ["nrt-lightning", "evaluate", *MODEL, "--questions=q.jsonl"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 130
    assert capsys.readouterr().err.splitlines()[-1].startswith("interrupted: the same command goes on")
    main()
    assert len(batches) == 3
    assert len(ROWS.read_text().splitlines()) == 1 + len(GOOD)


@pytest.mark.usefixtures("no_answers")
@pytest.mark.parametrize("case", FILES)
def test_questions_that_cannot_be_used_are_named(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, contents, words = FILES[case]
    write(name, lines(contents) if isinstance(contents, list) else contents)
    refused(words, capsys, f"--questions={name}")


@pytest.mark.usefixtures("no_answers")
@pytest.mark.timeout(60)
def test_a_pipe_is_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    for make, name in ((os.mkfifo, "pipe.jsonl"), (os.mkdir, "folder"), (os.mkfifo, "out.rows.jsonl")):
        make(name)
    refused("pipe.jsonl & not a regular file", capsys, "--questions=pipe.jsonl")
    refused("folder", capsys, "--questions=folder")
    for more in ((), ("--overwrite=true",)):
        refused("out.rows.jsonl & not a regular file", capsys, "--questions=q.jsonl", "--out=out.json", *more)


LENGTH = "{x: {class_path: FunctionSignal, init_args: {function: cli.test_evaluate_hostile.length}}}"
OPTIONS = {
    "--metrics=ExactMatsh": "metrics & Did you mean 'ExactMatch'?",
    "--metrics=TransformersEngine": "metrics & 'TransformersEngine' is not of the right kind & 'ExactMatch'",
    "--metrics=AnswerConfidence": "metrics & 'AnswerConfidence' is not of the right kind",
    "--metrics=[ExactMatch, ExactMatch]": "'exact_match' & mapping",
    "--metrics=ChoiceLetter": "choice_letter & q.jsonl:1 & 'd3,c0' & 3 of 3",
    "--template=Nope": "template & 'Nope' & Known: 'ChatTemplate', 'PlainTemplate'.",
    "--samples=0": "samples=0",
    "--samples=1.5": "samples & 1.5",
    "--samples=2 --temperature=0": "samples=2 & temperature=0",
    "--samples=2 --top_k=1": "samples=2 & top_k=1",
    "--temperature=-1": "temperature=-1",
    "--temperature=nan": "temperature & nan",
    "--top_p=0": "top_p=0",
    "--top_k=-1": "top_k=-1",
    "--batch_size=0": "batch_size=0",
    "--rows=0": "rows=0",
    "--max_answer_tokens=0": "max_answer_tokens=0",
    "--device=gpu": "--device='gpu'",
    "--device=meta": "--device='meta'",
    "--split=train": "--split='train' & q.jsonl",
    "--allow=x": "--allow='x' & --checkpoint",
    "--trust_remote_code=true": "--trust_remote_code=True & --checkpoint",
    "--base=x": "--base='x' & --checkpoint",
    "--out=": "--out & .json",
    "--out=folder.json": "folder.json & not a regular file",
    "--out=folder.json --overwrite=true": "folder.json & not a regular file",
    "--out=link.json": "link.json & not a regular file",
    "--out=q.jsonl/x.json": "q.jsonl",
    f"--out={300 * 'a'}.json": "--out & too long",
    "--out=a\0b.json": "--out & null",
    "--out=mine.json": "mine.json & no file of `nrt-lightning evaluate`",
    "--out=mine.json --overwrite=true": "mine.json & no file of `nrt-lightning evaluate`",
    "--out=notes.json": "notes.rows.jsonl & no file of `nrt-lightning evaluate`",
    "--out=notes.json --overwrite=true": "notes.rows.jsonl & no file of `nrt-lightning evaluate`",
    "--questions=mine.json --out=mine.json --overwrite=true": "mine.json & no file of",
}


@pytest.mark.usefixtures("no_answers")
@pytest.mark.parametrize("options", OPTIONS)
def test_options_that_cannot_be_used_are_named(options: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("folder.json").mkdir()
    Path("link.json").symlink_to("q.jsonl")
    write("mine.json", json.dumps(GOOD))
    write("notes.rows.jsonl", "notes without a line break")
    first, *more = options.split(" --")
    refused(OPTIONS[options], capsys, "--questions=q.jsonl", first, *(f"--{option}" for option in more))


@pytest.mark.usefixtures("no_answers")
def test_options_that_a_source_does_not_need_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--questions.class_path=FileSource", "--questions.path=q.jsonl"]
    refused("--split='test' & FileSource", capsys, *own, "--split=test")
    refused("--format=QuestionAnswer", capsys, *own, "--questions.format=QuestionAnswer", "--format=QuestionAnswer")
    refused("--split='test' & test rows of the run", capsys, "--split=test")


@pytest.mark.usefixtures("no_answers")
def test_rows_without_answers_name_the_switch_where_only_the_confidence_needs_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write("u.jsonl", lines([{"question": row["question"]} for row in GOOD]))
    refused("confidence=true & u.jsonl:1 & confidence=false", capsys, "--questions=u.jsonl", f"--metrics={LENGTH}")


def length(text: Any) -> float:
    """A metric that fails in every way for one question each."""
    return {"a": math.inf, "b": math.nan}.get(text.question[0]) or float(len(text.policy_answer) + 1)


def test_values_that_are_no_numbers_are_counted_as_failed(capsys: pytest.CaptureFixture[str]) -> None:
    write("u.csv", '\ufeffid,question,answer\nx,a4b*2c+2d+3?dc:,1\nx,b1c+1d*3?dc:,2\nx,"c1?c:",3\n')
    evaluate("--questions=u.csv", f"--metrics={LENGTH}")
    figures = json.loads(FIGURES.read_text(), parse_constant=pytest.fail)["metrics"]["x"]
    assert (figures["failed"], figures["stderr"]) == (2, None)
    assert "x failed for 2 answers" in capsys.readouterr().out
    answered = [json.loads(line) for line in ROWS.read_text().splitlines()[1:]]
    assert [row["id"] for row in answered] == ["x", "x#2", "x#3"], "equal ids are told apart"
    assert [row["reference"] for row in answered] == ["1", "2", "3"]


def edit(number: int, **fields: Any) -> Callable[[list[bytes]], list[bytes]]:
    def edited(written: list[bytes]) -> list[bytes]:
        changed = json.dumps(json.loads(written[number]) | fields, ensure_ascii=False).encode() + b"\n"
        return [*written[:number], changed, *written[number + 1 :]]

    return edited


EDITS: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "an answer": (edit(2, samples=[]), "rows.jsonl:3 & --overwrite"),
    "a question": (edit(2, question="other"), "rows.jsonl:3 & --overwrite"),
    "a confidence": (edit(1, confidence_without_trace="x"), "rows.jsonl:2"),
    "a field more": (edit(1, mine=1), "rows.jsonl:2"),
    "the settings": (edit(0, evaluation={"seed": 9}), "another evaluation"),
    "a field of the header": (edit(0, mine=9), "rows.jsonl:1"),
    "the kind": (edit(0, kind="x"), "no file of"),
    "the order": (lambda w: [w[0], w[2], w[1], w[3]], "rows.jsonl:2"),
    "a line less": (lambda w: [w[0], w[2], w[3]], "rows.jsonl:2"),
    "a line twice": (lambda w: [*w, w[-1]], "rows.jsonl:5"),
    "an empty line": (lambda w: [*w[:2], b"\n", *w[2:]], "rows.jsonl:3"),
    "a number": (lambda w: [*w[:2], b"3\n", *w[3:]], "rows.jsonl:3"),
    "brackets": (lambda w: [*w, b"[" * 100_000 + b"\n"], "rows.jsonl:5"),
    "bytes": (lambda w: [*w, b"\xff\0\n"], "rows.jsonl:5"),
    "line ends": (lambda w: [line.replace(b"\n", b"\r\n") for line in w], "rows.jsonl:1"),
    "a byte order mark": (lambda w: [b"\xef\xbb\xbf", *w], "rows.jsonl:1"),
    "the encoding": (lambda w: [b"".join(w).decode().encode("utf-16")], "no file of"),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The rows of a whole evaluation."""
    folder = tmp_path_factory.mktemp("whole")
    write(str(folder / "q.jsonl"), lines(GOOD))
    evaluate(f"--questions={folder}/q.jsonl", f"--out={folder}/evaluation.json")
    return (folder / ROWS.name).read_bytes().splitlines(keepends=True)


@pytest.mark.usefixtures("no_answers")
@pytest.mark.parametrize("case", EDITS)
def test_edited_rows_are_named(case: str, written: list[bytes], capsys: pytest.CaptureFixture[str]) -> None:
    change, words = EDITS[case]
    write(str(ROWS), b"".join(change(written)))
    refused(words, capsys, "--questions=q.jsonl")


@pytest.mark.usefixtures("no_answers")
def test_rows_that_no_longer_exist_are_another_evaluation(
    written: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    write(str(ROWS), b"".join(written))
    write("q.jsonl", lines(GOOD[:2]))
    refused("another evaluation & 3 rows & 2 rows", capsys, "--questions=q.jsonl")


def test_what_a_kill_leaves_is_finished(written: list[bytes]) -> None:
    whole = b"".join(written)
    for left in (10, len(whole) - 1):
        write(str(ROWS), whole[:left])
        FIGURES.unlink(missing_ok=True)
        evaluate("--questions=q.jsonl")
        assert ROWS.read_bytes() == whole


@pytest.mark.usefixtures("no_answers")
def test_of_two_evaluations_with_one_file_the_second_is_refused(
    written: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    write(str(ROWS), b"".join(written))
    header = json.loads(written[0])["evaluation"]
    first = Results(FIGURES, header)
    refused("rows.jsonl is being written by another", capsys, "--questions=q.jsonl")
    first.close()
    evaluate("--questions=q.jsonl")


def test_a_full_disk_is_one_line_and_keeps_what_is_there(written: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(InputError, match=r"rows\.jsonl.*No space left.*0 questions.*kept"):
            evaluate("--questions=q.jsonl")
    evaluate("--questions=q.jsonl")
    assert ROWS.read_bytes() == b"".join(written)


def started(*options: str) -> int:
    """A process that evaluates."""
    process = os.fork()  # the libraries are imported
    if process == 0:
        status = 1
        try:
            for stream in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            evaluate(*options)
            status = 0
        finally:
            os._exit(status)
    return process


def test_an_evaluation_killed_at_any_moment_ends_with_the_same_files() -> None:
    write("q.jsonl", lines([row | {"id": f"{n}"} for n, row in enumerate(GOOD * 4)]))
    options = ("--questions=q.jsonl", "--samples=2")
    assert os.waitpid(started(*options, "--out=whole.json"), 0)[1] == 0
    rows = Path("cut.rows.jsonl")
    for least in (0, 1, 5, 9):  # lines when it is killed
        process = started(*options, "--out=cut.json")
        while not (rows.exists() and rows.read_bytes().count(b"\n") >= least):
            assert os.waitpid(process, os.WNOHANG) == (0, 0), "it ended before"
            time.sleep(0.002)
        os.kill(process, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(process, 0)[1])
        assert not Path("cut.json").exists()
    assert os.waitpid(started(*options, "--out=cut.json"), 0)[1] == 0
    for ending in (".json", ".rows.jsonl"):
        assert Path(f"cut{ending}").read_bytes() == Path(f"whole{ending}").read_bytes()
