"""`nrt-lightning chat` from an export, and from a run; from a terminal, an option and a pipe."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.small_runs import QUICKSTART, Command
from nrt_lightning import InputError, Policy, export_policy
from nrt_lightning.cli.main import run

QUESTION = "b1c+1d*3?dc:"


@pytest.fixture
def exported() -> str:
    export_policy(Policy("embedded:registers-base").load(), "m")
    return "m"


def chat(*options: str) -> None:
    run(["chat", *options, "--max_trace_tokens=4", "--max_answer_tokens=4"])


def test_a_run_answers_as_its_export_does(nrt: Command, capsys: pytest.CaptureFixture[str]) -> None:
    nrt("fit", "--trainer.callbacks=BestAndLast", "--model.optimizer.lr=0.01")
    run_of = ["--config", QUICKSTART, "--config=small.yaml", "--trainer.callbacks=BestAndLast"]
    run(["export", *run_of, "--out=m"])
    capsys.readouterr()
    answers = []
    for options in (["m"], run_of, [*run_of, "--checkpoint=best"], ["--checkpoint=out/checkpoints/best.ckpt"]):
        chat(*options, f"--question={QUESTION}")
        found = capsys.readouterr()
        assert found.out.startswith("reasoning: ")
        assert "\nanswer: " in found.out
        answers.append(found.out)
    assert len(set(answers)) == 1
    limits = json.loads(Path("m/nrt_lightning.json").read_text())["limits"]
    assert limits == {"max_trace_tokens": 6, "max_answer_tokens": 6}, "those of the run"


def test_a_pipe_holds_a_question_a_line(
    exported: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUESTION}\n\n  \nb2c+2d*3?dc:"))
    chat(exported)
    printed = capsys.readouterr().out
    assert printed.count("question: ") == printed.count("reasoning: ") == printed.count("answer: ") == 2
    monkeypatch.setattr("sys.stdin", io.StringIO("two\nlines"))
    chat(exported, "--question=-")
    assert capsys.readouterr().out.count("answer: ") == 1
    monkeypatch.setattr("sys.stdin", io.StringIO(" \n"))
    with pytest.raises(InputError, match="no question"):
        chat(exported)


def test_a_question_that_does_not_fit_does_not_end_the_conversation(
    exported: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{'a' * 400}\n{QUESTION}\n"))
    chat(exported)
    printed = capsys.readouterr().out
    assert "no room" in printed
    assert printed.count("answer: ") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "no model is named"),
        (["m", "--checkpoint=last"], "both"),
        (["m", "--base=b"], "--base='b'"),
        (["./missing"], "'./missing'"),
        (["m", "--question= "], "--question is empty"),
        (["m", "--device=cuda:99"], "--device='cuda:99'"),
        (["--checkpoint=missing.ckpt"], "'missing.ckpt'"),
    ],
)
def test_what_cannot_be_used_is_named(options: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        run(["chat", *options])


def test_an_interrupt_leaves_without_a_traceback(
    exported: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nrt_lightning.tools.chat.answering.write_answers", interrupt)
    monkeypatch.setattr("sys.stdin", io.StringIO(QUESTION))
    chat(exported)
    assert capsys.readouterr().out.endswith("\n")
    with pytest.raises(SystemExit) as caught:
        chat(exported, f"--question={QUESTION}")
    assert caught.value.code == 130


def terminal_session(directory: str, *keys: bytes) -> tuple[str, int]:
    """What appears on a terminal on which keys are pressed, each after the next prompt."""
    main, own = pty.openpty()
    command = [sys.executable, "-m", "nrt_lightning", "chat", directory, "--max_trace_tokens=4"]
    process = subprocess.Popen(command, stdin=own, stdout=own, stderr=own, start_new_session=True, close_fds=True)
    os.close(own)
    shown, waiting = "", list(keys)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            new = os.read(main, 4096).decode()
        except OSError:  # the process has closed it
            break
        shown += new
        if shown.endswith("question: ") and waiting:
            key = waiting.pop(0)
            if key == b"\x03":
                process.send_signal(signal.SIGINT)
            else:
                os.write(main, key)
    return shown, process.wait(timeout=30)


@pytest.mark.slow
@pytest.mark.parametrize("leave", [b"\x04", b"\x03"], ids=["Ctrl-D", "Ctrl-C"])
def test_on_a_terminal(exported: str, leave: bytes) -> None:
    shown, code = terminal_session(str(Path(exported).absolute()), QUESTION.encode() + b"\n", leave)
    assert code == 0
    assert "Ctrl-D ends" in shown
    assert "\033[2mreasoning: " in shown
    assert "\033[0m\r\nanswer: " in shown
    assert "Traceback" not in shown
