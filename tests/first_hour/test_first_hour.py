"""The hour of docs/first_hour.md: from rows and a model to answers, and nothing else is left behind."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import pytest
from installed import build_wheel, install

from first_hour.hour import (
    ANSI,
    LOGGER,
    QUESTION,
    SHORT,
    Case,
    Said,
    Shell,
    check_clean,
    check_error,
    environment,
    in_pairs,
    save_rows,
    save_small,
)
from nrt_lightning.cli.main import run
from nrt_lightning.cli.user_errors import input_error

CURVES = {"tensorboard": "events.out.*", "csv": "metrics.csv"}


def play(shell, case: Case, folder: Path) -> dict[str, Said]:
    """All commands in order, each of which must succeed.

    Args:
        shell: runs a command in `folder`.
        case: which file, model and logger.
        folder: an empty one; the model is put beside it.
    """
    rows = f"Meine Fragen.{case.rows}"
    save_rows(folder / rows)
    save_small(folder.parent / "model", case.model)
    columns = ("--question=Aufgabe (dt.)", "--answer=Ergebnis")
    said = {}
    for name, *words in (
        ("init", f"--data={rows}", "--model=../model", *columns),
        ("preflight", "--config", "run.yaml", "--rows=4", "--model.sampling.max_trace_tokens=8"),
        ("plan", "--config", "run.yaml"),
        ("fit", "--config", "run.yaml", *LOGGER[case.logger], *SHORT),
        ("validate", "--config", "run.yaml", "--ckpt_path=best", "--model.sampling.max_trace_tokens=8"),
        ("export", "--config", "run.yaml", "--out=trained"),
        ("chat", "trained", f"--question={QUESTION}"),
    ):
        said[name] = shell(name, *words)
        check_clean(said[name])
    check_said(said, case, folder)
    left = {path.name for path in folder.iterdir()}
    assert left == {rows, "run.yaml", "runs", "trained"}
    assert [path.name for path in (folder / "runs").iterdir()] == ["run"]
    return said


def check_said(said: dict[str, Said], case: Case, folder: Path) -> None:
    """The commands say what they did, and the paths that they print exist."""
    plain = {name: " ".join(words.all.split()) for name, words in said.items()}
    assert "chat template" in plain["init"]
    assert ("no chat template" in plain["init"]) == (case.model == "plain")
    assert "60 in Meine Fragen" in plain["init"]
    assert re.search(r"Can NRT start from here\? (YES|NO|UNCLEAR)", plain["preflight"])
    assert "Größe" in plain["preflight"]
    assert re.search(r"GiB|MiB", plain["plan"])
    lines = [line for line in ANSI.sub("", said["fit"].out).splitlines() if line.strip()]
    last = "\n".join(line for line in lines if not line.startswith("wandb: "))  # which has the last word
    kept = re.findall(r"^(?:best|last) checkpoint: (\S+)", "\n".join(last.splitlines()[-2:]), re.MULTILINE)
    assert len(kept) == 2, last[-500:]
    printed = kept + re.findall(r"written to (\S+\.json)", said["fit"].all)
    assert len(printed) == 3
    assert [path for path in printed if not (folder / path).is_file()] == []
    shown = re.findall(r"^curves: (?:tensorboard --logdir )?(.+)$", last, re.MULTILINE)
    assert len(shown) == (case.logger in ("tensorboard", "csv"))
    assert [path for path in shown if not list((folder / path).parent.rglob(CURVES[case.logger]))] == []
    assert "best.ckpt" in plain["validate"]
    assert "val/exact_match" in plain["validate"]
    assert (folder / "trained" / "model.safetensors").is_file()
    assert "reasoning: " in said["chat"].all
    assert "answer: " in said["chat"].all


def test_every_two_choices_meet() -> None:
    cases = [(case.rows, case.model, case.logger, case.terminal) for case in in_pairs()]
    for one, other in combinations(range(4), 2):
        together = {(case[one], case[other]) for case in cases}
        assert len(together) == len({case[one] for case in cases}) * len({case[other] for case in cases})


def test_an_hour_in_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder := tmp_path / "empty").mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")

    def shell(*words: str) -> Said:
        monkeypatch.setattr("sys.argv", ["nrt-lightning", *words])
        code, message = 0, ""
        try:
            run()
        except SystemExit as left:
            code = int(left.code or 0)
        except ValueError as error:
            code, message = 1, f"error: {input_error(error)}\n"
        found = capfd.readouterr()
        return Said(code, found.out, found.err + message)

    play(shell, Case("csv", "chat", "tensorboard", terminal=False), folder)
    check_error(shell("export", "--config", "run.yaml", "--out=trained"), "'?trained'? is not empty|trained.*not empty")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The command of a wheel that is installed into a fresh environment."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("installed")
    commands, _ = install(build_wheel(folder), folder / "venv")
    return str(commands / "nrt-lightning")


@pytest.mark.slow
@pytest.mark.parametrize("case", in_pairs(), ids=str)
def test_an_hour_from_the_wheel(case: Case, program: str, tmp_path: Path) -> None:
    if case.logger == "wandb":
        pytest.importorskip("wandb")
    (folder := tmp_path / "empty").mkdir()
    home = tmp_path / "home"
    shell = Shell([program], folder, environment(home), case.terminal)
    play(shell, case, folder)
    assert list((home / "tmp").iterdir()) == []
    check_error(Shell([program], folder, shell.variables, terminal=False)("fit", "--config", "rum.yaml"), "run.yaml")
