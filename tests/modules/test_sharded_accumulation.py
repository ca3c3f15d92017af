"""Sharded weights: gradients accumulated over micro-batches of unequal numbers of tokens are those of whole weights."""

from __future__ import annotations

import json

import pytest
from forked import run_forked

SCRIPT = """
import json
import lightning as L
import torch
from short_runs import registers
from strategies.runs import strategy
from nrt_lightning import ConstantSchedule, Policy, SFTModule

class Note(L.Callback):
    def on_before_optimizer_step(self, trainer, module, optimizer):
        norms.append(float(module.policy.sharding.grad_norm(module.policy)))

if __name__ == "__main__":
    found = []
    for kind in ("ddp", "fsdp2", "fsdp1"):
        L.seed_everything(7)
        norms = []
        module = SFTModule(
            Policy("embedded:registers-base"), optimizer=lambda params: torch.optim.SGD(params, lr=0.1),
            schedule=ConstantSchedule(0),
        )
        L.Trainer(
            accelerator="cpu", devices=2, strategy=strategy(kind, 2, False), logger=False, max_steps=2, max_epochs=-1,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
            accumulate_grad_batches=3, callbacks=[Note()],
        ).fit(module, registers(batch_size=2))
        found.append(norms)
    with open("found.json", "w") as file:
        json.dump(found, file)
"""


@pytest.mark.slow
def test_sharded_weights_accumulate_as_whole_ones(tmp_path):
    (tmp_path / "run.py").write_text(SCRIPT)
    run_forked(tmp_path / "run.py", folder=tmp_path)
    whole, *sharded = json.loads((tmp_path / "found.json").read_text())
    assert len(whole) == 2
    for norms in sharded:
        assert norms == pytest.approx(whole, rel=1e-4)
