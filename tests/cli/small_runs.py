"""Command lines on few rows, for few steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nrt_lightning.cli.lightning_cli import NRTCLI

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
