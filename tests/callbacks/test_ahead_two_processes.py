"""Two processes sample ahead, each its own rows, and go on from one checkpoint as if they had not stopped."""

import json

import pytest
from forked import run_forked

SCRIPT = """
import json, sys
import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from short_runs import Recorder, nrt_module, registers
from nrt_lightning import AheadRollout, ConstantSchedule

def run(name, max_steps, ckpt_path=None):
    L.seed_everything(7)
    recorder = Recorder()
    checkpoint = ModelCheckpoint(sys.argv[1] + "/" + name, save_last=True, every_n_train_steps=1, save_top_k=0)
    trainer = L.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", logger=False, max_steps=max_steps, max_epochs=9,
        callbacks=[AheadRollout(progress=False), recorder, checkpoint], enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, default_root_dir=sys.argv[1],
    )
    module = nrt_module(schedule=ConstantSchedule(warmup=0))
    trainer.fit(module, registers(val=None, window=2), ckpt_path=ckpt_path)
    return trainer.global_rank, dict(
        rows=recorder.rows, ratios=recorder.ratios,
        traces=[batch.rollouts.completion_ids.tolist() for batch in recorder.batches],
        weights=[p.double().sum().item() for p in module.policy.parameters()],
    )

if __name__ == "__main__":
    rank, whole = run("whole", 6)
    run("half", 4)
    _, rest = run("rest", 6, sys.argv[1] + "/half/last.ckpt")
    with open(sys.argv[1] + f"/{rank}.json", "w") as file:
        json.dump(dict(whole=whole, rest=rest), file)
"""


@pytest.mark.slow
def test_two_processes_resume_exactly(tmp_path):
    file = tmp_path / "run.py"
    file.write_text(SCRIPT)
    run_forked(file, tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    for found in (first, second):
        for name in ("rows", "traces"):
            assert found["rest"][name] == found["whole"][name][4:]
        assert found["rest"]["weights"] == found["whole"]["weights"]
        assert abs(found["rest"]["ratios"][0] - 1) > 1e-3, "the window is that of older weights"
    assert first["whole"]["weights"] == second["whole"]["weights"]
    for one, other in zip(first["whole"]["rows"], second["whole"]["rows"]):
        assert not set(one) & set(other)
