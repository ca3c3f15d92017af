"""Diagnostics in two processes: both see the same and act alike."""

import json

from forked import run_forked

SCRIPT = """
import json
import lightning as L
from short_runs import nrt_module, registers
from nrt_lightning import CollapseDetector, CollapseSign, LowerLearningRate, RestoreCheckpoint, RewardCorrectness
from nrt_lightning import RegisterPrograms, Sampling
from nrt_lightning.tools.preflight import PreflightModule

class Later(CollapseSign):
    def __call__(self, now, past):
        return "it is later" if now.step > 1 else None

def trainer(**settings):
    return L.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", logger=False, max_steps=2, max_epochs=-1,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        default_root_dir={out!r}, **settings,
    )

if __name__ == "__main__":
    L.seed_everything(7)
    actions = [LowerLearningRate(0.5), RestoreCheckpoint()]
    detector = CollapseDetector(every_n_steps=1, patience=1, signs=[Later()], actions=actions)
    sampling = Sampling(group_size=8, max_trace_tokens=24, suppress_eos=True)
    module, data = nrt_module(sampling=sampling), registers(val=RegisterPrograms("validation", 8), eval_batch_size=2)
    made = trainer(callbacks=[detector, RewardCorrectness(rows=4)], val_check_interval=2)
    made.fit(module, data)
    preflight = PreflightModule(module, rows=4, chunk=2)
    again = trainer()
    again.validate(preflight, data, verbose=False)
    seen = {{
        "vitals": [vars(vitals) for vitals in detector.past],
        "weight": float(sum(p.detach().double().abs().sum() for p in module.policy.parameters())),
        "correctness": {{k: float(v) for k, v in made.callback_metrics.items() if k.startswith("correctness/")}},
        "rows": preflight.measures().rows,
        "restored": actions[1].step,
    }}
    with open({out!r} + f"/{{made.global_rank}}.json", "w") as file:
        json.dump(seen, file)
"""


def test_both_processes_see_the_same_and_act_alike(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT.format(out=str(tmp_path)))
    run_forked(script)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert [vitals["step"] for vitals in first["vitals"]] == [1, 2]
    assert first["restored"] == 1
    assert "correctness/right" in first["correctness"]
    assert first["rows"] == 8
