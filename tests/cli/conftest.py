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


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # the command line sets it; here it is put back afterwards
    (tmp_path / "small.yaml").write_text(SMALL)


@pytest.fixture
def nrt() -> Command:
    """`nrt("fit", "--option=value")`: a command with the quickstart config, made small, and further options."""

    def command(name: str, *options: str) -> NRTCLI:
        return run([name, "--config", QUICKSTART, "--config", "small.yaml", *options])

    return command
