"""Command lines that run in this process, on few rows, for few steps, in a directory of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nrt_lightning.cli import NRTCLI, run

CONFIGS = Path(__file__).parents[2] / "configs"
QUICKSTART = str(CONFIGS / "quickstart.yaml")

SMALL = """
trainer:
  default_root_dir: out
  max_steps: 2
  val_check_interval: 2
  limit_val_batches: 1
  limit_test_batches: 1
  logger: false
  callbacks: []
  enable_progress_bar: false
  enable_model_summary: false
model:
  init_args:
    sampling: {group_size: 2, max_trace_tokens: 6, max_answer_tokens: 6}
data:
  init_args:
    train: {class_path: nrt_lightning.RegisterPrograms, init_args: {split: train, size: 8}}
    val: {class_path: nrt_lightning.RegisterPrograms, init_args: {split: validation, size: 4}}
    test: {class_path: nrt_lightning.RegisterPrograms, init_args: {split: test, size: 4}}
    batch_size: 2
    eval_batch_size: 4
"""

Command = Callable[..., NRTCLI]


def small_args(command: str, directory: Path, *options: str) -> list[str]:
    """A command line with the quickstart config, made small, and further options; `directory` gets `small.yaml`."""
    small = directory / "small.yaml"
    small.write_text(SMALL)
    return [command, "--config", QUICKSTART, "--config", str(small), *options]


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["nrt-lightning"])
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # the command line sets it; here it is put back afterwards


@pytest.fixture
def nrt(tmp_path: Path) -> Command:
    """`nrt("fit", "--option=value")` runs a small command."""
    return lambda command, *options: run(small_args(command, tmp_path, *options))
