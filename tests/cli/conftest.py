"""Command lines that run in this process, in a directory of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.small_runs import Command, small_args
from nrt_lightning.cli.main import run


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["nrt-lightning"])
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # the command line sets it; here it is put back afterwards


@pytest.fixture
def nrt(tmp_path: Path) -> Command:
    """`nrt("fit", "--option=value")` runs a small command."""
    return lambda command, *options: run(small_args(command, tmp_path, *options))
