"""The embedded bases are rebuilt from nothing by one config each."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import pytest
import torch

from cli.small_runs import CONFIGS
from nrt_lightning import Policy
from nrt_lightning.assets import POINTERS_BASE, REGISTERS_BASE, REPORTS_BASE
from nrt_lightning.cli.main import run
from nrt_lightning.tasks.registers import RegisterPrograms, worked_trace

BASES = {"registers": REGISTERS_BASE, "reports": REPORTS_BASE, "pointers": POINTERS_BASE}


class Losses(L.Callback):
    values: list[float]

    def on_train_start(self, trainer, module):
        Losses.values = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        Losses.values.append(float(trainer.callback_metrics["train/loss"]))


def pretrain(task: str, *options: str) -> Policy:
    config = str(CONFIGS / "pretrain" / f"{task}_base.yaml")
    quiet = ["--trainer.logger=false", "--trainer.enable_progress_bar=false", "--trainer.enable_checkpointing=false"]
    run(["fit", "--config", config, *quiet, f"--trainer.callbacks+={__name__}.Losses", *options])
    return Policy(f"./runs/{task}-base/model").load()


@pytest.mark.parametrize(
    "task", [task if task == "registers" else pytest.param(task, marks=pytest.mark.slow) for task in BASES]
)
def test_a_shortened_rebuild_learns_and_is_a_base_without_the_marker(task: str) -> None:
    short = ["--data.train.size=1280", "--data.passes=1", "--data.batch_size=32", "--model.schedule.warmup=5"]
    policy = pretrain(task, *short)
    assert len(Losses.values) == 40
    assert sum(Losses.values[-5:]) < 0.75 * sum(Losses.values[:5])
    assert policy.marker_is_new
    shipped = Policy(str(BASES[task])).load()
    ours, theirs = policy.network.state_dict(), shipped.network.state_dict()
    assert {name: weight.shape for name, weight in ours.items()} == {name: w.shape for name, w in theirs.items()}
    exported = Path(f"runs/{task}-base/model")
    assert {path.name for path in BASES[task].iterdir()} == {path.name for path in exported.iterdir()}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_full_rebuild_reads_registers_off_a_log() -> None:
    policy = pretrain("registers")
    rows, right = RegisterPrograms("validation", 64).rows(), 0
    for row in rows:
        trace = worked_trace(row.question)
        text = f"{row.question[:-4]}#{row.question[-3:-1]} {trace}|"
        ids = torch.tensor([policy.tokenizer(text)["input_ids"]])
        with policy.evaluating():
            out = policy.network.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        right += policy.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True) == row.answer
    assert right / len(rows) > 0.9
