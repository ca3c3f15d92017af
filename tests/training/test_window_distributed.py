"""Two processes judge the groups of both."""

import json

import pytest
from forked import run_forked

SCRIPT = """
import json, sys
import lightning as L
from short_runs import nrt_module, registers
from nrt_lightning import BatchNormalized, EMADeviationFilter, Sampling

class Note(L.Callback):
    def __init__(self):
        self.steps = []
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        rollouts = batch.rollouts
        logged = ("rollout/refill_rounds", "train/filtered_groups")
        self.steps.append(dict(
            rows=[row.id for row in batch.rows], loss_rows=rollouts.credit.loss_rows.tolist(),
            advantages=rollouts.credit.advantages.tolist(),
            logged=[float(trainer.callback_metrics[name]) for name in logged],
        ))

if __name__ == "__main__":
    L.seed_everything(7)
    note = Note()
    trainer = L.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", logger=False, max_steps=3, max_epochs=-1, callbacks=[note],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        default_root_dir=sys.argv[1],
    )
    module = nrt_module(
        advantage=BatchNormalized(), filters=[EMADeviationFilter(beta=1.0, average_from=1, filter_from=2)],
        sampling=Sampling(group_size=4, max_trace_tokens=12, refill_rounds=2),
    )
    trainer.fit(module, registers(val=None))
    weight = float(sum(p.detach().double().abs().sum() for p in module.policy.parameters()))
    with open(sys.argv[1] + f"/{trainer.global_rank}.json", "w") as file:
        json.dump(dict(steps=note.steps, weight=weight, state=module.method.filters[0].state_dict()), file)
"""


def test_two_processes_filter_refill_and_normalize_as_one(tmp_path):
    file = tmp_path / "run.py"
    file.write_text(SCRIPT)
    run_forked(file, tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["state"] == second["state"], "the filters' memory is of the groups of both"
    assert first["weight"] == second["weight"]
    assert first["steps"][-1]["logged"][0] > 0, "some groups were replaced, or this test shows nothing"
    for one, other in zip(first["steps"], second["steps"]):
        assert one["logged"] == other["logged"]
        assert not set(one["rows"]) & set(other["rows"])
        kept = [
            advantage
            for step in (one, other)
            for advantage, kept_row in zip(step["advantages"], step["loss_rows"])
            if kept_row
        ]
        variance = sum(a * a for a in kept) / (len(kept) - 1)
        assert variance == pytest.approx(1, rel=1e-4), "one scale for the groups of both"
