"""What a user's folder may hold: no error but one line, no waiting, and a note that names the file."""

from __future__ import annotations

import io
import json
import math
import os
import re
import sys
from pathlib import Path

import pytest
from made_up import made_up_run, write_lines
from test_report import written

from nrt_lightning import InputError
from nrt_lightning.cli.main import run as command
from nrt_lightning.tools.report import write_report
from nrt_lightning.tools.report.lines import LONGEST_LINE
from nrt_lightning.tools.report.page import LARGEST

HUGE = "9" * 400
DEEP = "[" * 900 + "]" * 900


def csv_only(run: Path, text: str) -> None:
    (run / "metrics.jsonl").unlink()
    (run / "metrics.csv").write_text(text, encoding="utf-8")


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def more(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text + "\n", encoding="utf-8")


def facts(run: Path, **new) -> None:
    (run / "run.json").write_text(json.dumps(json.loads((run / "run.json").read_text()) | new))


CASES = [
    (lambda run: csv_only(run, f"step,a\n0,1\n1,{'x' * 200_000}\n2,3\n"), "1 line of metrics.csv could not"),
    (lambda run: csv_only(run, f"step,a\n0,1\n{HUGE},1\ninf,1\n"), "2 lines of metrics.csv could not"),
    (lambda run: csv_only(run, "\ufeffstep,a\r\n0,1\r\n"), "curves are from metrics.csv"),
    (lambda run: more(run / "metrics.jsonl", '{"step": 61, "a": 1e308}\n' * 2), "2 values of metrics.jsonl left out"),
    (lambda run: more(run / "metrics.jsonl", '{"step": 61, "a": NaN, "b": "x"}'), "2 values of metrics.jsonl left out"),
    (lambda run: more(run / "metrics.jsonl", f'{{"step": {HUGE}, "a": 1}}'), "1 line of metrics.jsonl could not"),
    (lambda run: more(run / "metrics.jsonl", '{"step": 1e308, "a": 1}'), "1 line of metrics.jsonl could not"),
    (lambda run: more(run / "samples.jsonl", '{"step": 1e308, "traces": []}'), "1 line of samples.jsonl left out"),
    (lambda run: more(run / "samples.jsonl", f'{{"step": 1, "traces": [{"{}," * (LONGEST_LINE // 3)}{{}}]}}'),
     "1 line of samples.jsonl could not"),
    (lambda run: pipe(run / "samples.jsonl"), "samples.jsonl is not a file"),
    (lambda run: pipe(run / "run.json"), "run.json is not a file"),
    (lambda run: loop(run / "samples.jsonl"), "samples.jsonl cannot be read"),
    (lambda run: loop(run / "metrics.csv"), "metrics.csv cannot be read"),
    (lambda run: folder(run / "run.json"), "run.json is not a file"),
    (lambda run: folder(run / "samples.jsonl"), "samples.jsonl is not a file"),
    (lambda run: facts(run, settings=3, module={"a": 1}, started=math.nan, format=["x" * 999]), "has the format"),
    (lambda run: more(run / "metrics.jsonl", json.dumps({"step": 61, **{f"x{n}": n for n in range(5000)}})),
     "logged values are left out"),
]  # fmt: skip


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("change", "note"), CASES)
def test_what_cannot_be_read_is_left_out_and_named(tmp_path, change, note):
    change(made_up_run(tmp_path / "quick"))
    html, data, notes = written([tmp_path / "quick"], tmp_path)
    assert [told for told in notes if note in told], notes
    assert len(data["runs"]) == 1
    assert len(html.encode()) < LARGEST


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("make", "name"), [(pipe, "metrics.jsonl"), (loop, "metrics.jsonl"),
                                            (pipe, "events.out.tfevents.1")])  # fmt: skip
def test_a_log_that_is_no_file_is_named(tmp_path, make, name):
    make(tmp_path / name)
    with pytest.raises(InputError, match=rf"no log of a run.*{name} (is not a file|cannot be read)"):
        write_report([tmp_path], tmp_path / "report.html")


def test_results_that_are_a_pipe_are_not_waited_for(tmp_path):
    made_up_run(tmp_path / "quick")
    pipe(tmp_path / "quick" / "results.json")
    assert written([tmp_path / "quick"], tmp_path)[1]["runs"][0]["results"]["exact_match"] == 0.88


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_what_is_forbidden_is_named(tmp_path):
    run = made_up_run(tmp_path / "quick")
    made_up_run(tmp_path / "quick", "closed").chmod(0)
    (run / "samples.jsonl").chmod(0)
    notes = written([tmp_path / "quick"], tmp_path)[2]
    assert [bool(re.search(name, " ".join(notes))) for name in ("closed cannot be", "samples.jsonl cannot be")] == [
        True
    ] * 2


def test_settings_of_any_depth_kind_and_size_are_shown(tmp_path):
    run = made_up_run(tmp_path / "quick")
    settings = f'{{"deep": {DEEP}, "nan": NaN, "long": "{"x" * 100_000}", "list": [{"0," * 5000}0]}}'
    name = json.dumps("a\n" + "b" * 999)
    (run / "run.json").write_text(f'{{"format": 1, "name": {name}, "module": NaN, "settings": {settings}}}')
    html, data, _ = written([tmp_path / "quick"], tmp_path)
    shown = data["runs"][0]["settings"]
    assert (shown["nan"], shown["list"][-1], shown["long"][-36:]) == (
        "nan", "4,001 more left out", " [... 98,000 characters left out]"[-36:].rjust(36, "x")
    )  # fmt: skip
    assert "(too deep)" in json.dumps(shown["deep"])
    assert data["runs"][0]["name"] == "a " + "b" * 78
    assert len(html) < LARGEST


def test_a_self_assessment_of_any_values_is_shown(tmp_path):
    run = made_up_run(tmp_path / "quick")
    rows = [{"id": str(n), "right": True, "agreement": 1e308 if n else 0.5} for n in range(5000)]
    rows += [{"right": math.nan}, {"right": {"a": [1]}, "agreement": -1e99}]
    write_lines(run / "self_assessment.jsonl", [{"step": 1, "rows": rows}])
    found = written([tmp_path / "quick"], tmp_path)[1]["runs"][0]["calibration"]
    assert (found["count"], len(found["rows"])) == (5002, 200)
    assert found["curves"]["agreement"]["bins"] == [[0.5, 1.0, 1]]


def test_many_looks_with_many_words_take_seconds(tmp_path):
    run = made_up_run(tmp_path / "quick")
    words = [" ".join(f"w{chr(97 + at % 26)}{chr(97 + at // 26 % 26)}{chr(97 + n % 26)}" for at in range(n, n + 40))
             for n in range(3000)]  # fmt: skip
    write_lines(run / "samples.jsonl", [{"step": n, "split": "val", "id": "q", "traces": [{"kind": "x", "text": w}]}
                                        for n, w in enumerate(words)])  # fmt: skip
    steps = written([tmp_path / "quick"], tmp_path)[1]["runs"][0]["words"]["steps"]
    assert (len(steps), steps[0], steps[-1]) == (60, 0, 2999)


def test_of_thousands_of_runs_the_newest_are_read(tmp_path):
    for number in range(2000):
        run = tmp_path / "runs" / f"run{number}"
        run.mkdir(parents=True)
        (run / "metrics.jsonl").write_text('{"step": 1, "train/loss": 1.0}\n' if number % 2 else "")
        os.utime(run / "metrics.jsonl", (1e9 + number, 1e9 + number))
    _, data, notes = written([tmp_path / "runs", tmp_path / "runs" / "run1999"], tmp_path)
    assert {run["name"] for run in data["runs"]} == {f"run{number}" for number in range(1977, 2000, 2)}
    assert "run1998 has no figures" in notes[0]
    assert [note for note in notes if re.fullmatch(r"1,977 of 1,989 runs are left out.*run1976.* and 1,972 more", note)]
    assert max(map(len, notes)) < 500


def test_only_a_page_is_replaced(tmp_path):
    log = made_up_run(tmp_path / "quick") / "metrics.jsonl"
    before = log.read_bytes()
    pipe(tmp_path / "pipe")
    for output, why in ((log, "no HTML page"), (tmp_path / "pipe", "no file"), (Path("/dev/null"), "no file"),
                        (log / "x.html", "cannot be"), (tmp_path / ("x" * 300), "cannot be written")):  # fmt: skip
        with pytest.raises(InputError, match=rf"output=.*{why}"):
            write_report([tmp_path / "quick"], output)
    assert log.read_bytes() == before
    assert not list(tmp_path.rglob("*.part"))
    for _ in range(2):
        write_report([tmp_path / "quick"], tmp_path / "missing" / "folder" / "page")


def test_names_that_are_no_text_are_printed(tmp_path, monkeypatch):
    run = made_up_run(tmp_path / "quick")
    (run / "run.json").unlink()
    os.rename(run, os.fsencode(run.parent) + b"/r\xff")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "utf-8"))  # as that of a terminal
    command(["report", str(tmp_path / "quick"), f"--output={tmp_path / 'page.html'}"])
    sys.stdout.flush()
    assert rb"r\udcff: run.json is missing" in sys.stdout.buffer.getvalue()


def test_a_user_that_is_not_known_is_no_folder():
    with pytest.raises(InputError, match=r"~nobody-here.*is not a folder"):
        command(["report", "~nobody-here/runs"])
