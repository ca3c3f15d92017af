"""Two processes, for real: what they report together is what one process reports."""

import json

import pytest
from forked import run_forked

SCRIPT = """
import json, sys, torch
import lightning as L
from short_runs import nrt_module, registers
from torchmetrics.text import CharErrorRate, ROUGEScore
from nrt_lightning import ConstantSchedule, ExactMatch, NRTLoss, Policy, RegisterPrograms, Sampling, SFTModule
from nrt_lightning import TruncatedImportance
from nrt_lightning.functional import TokenMean

def sgd(params):
    return torch.optim.SGD(params, lr=0.1)

if __name__ == "__main__":
    L.seed_everything(7)
    devices, limit = int(sys.argv[1]), int(sys.argv[3])
    trainer = L.Trainer(
        accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", logger=False, max_steps=2,
        max_epochs=-1, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, default_root_dir=sys.argv[2],
    )
    metrics = [ROUGEScore(rouge_keys="rougeL"), CharErrorRate(), ExactMatch(forced=True)]
    module = nrt_module(max_tokens_per_micro_batch=limit or None, metrics=metrics)
    data = registers(val=RegisterPrograms("validation", 7), eval_batch_size=2)
    before = None if limit else trainer.validate(module, data, verbose=False)[0]
    rows = []
    class Note(L.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            rows.append([row.id for row in batch.rows])
    trainer.callbacks.append(Note())
    trainer.limit_val_batches = 0
    if devices > 1:
        trainer.fit(module, data)
    start = dict(Policy("embedded:registers-base").load().named_parameters())

    def accumulated(module, window=1):
        L.Trainer(
            accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", logger=False, max_steps=2,
            max_epochs=-1, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            limit_val_batches=0, default_root_dir=sys.argv[2], accumulate_grad_batches=4 // devices,
        ).fit(module, registers(batch_size=2, window=window))
        return sum(float((p - start[n]).double().abs().sum()) for n, p in module.policy.named_parameters())

    common = {"optimizer": sgd, "schedule": ConstantSchedule(0)}
    greedy = {  # traces do not depend on the number of processes
        "sampling": Sampling(group_size=2, max_trace_tokens=12, top_k=1),
        "loss": NRTLoss(reduction=TokenMean(), trace_coef=0.0, sampler_correction=TruncatedImportance()),
    }
    moved = [] if limit else [
        accumulated(SFTModule(Policy("embedded:registers-base"), **common)),
        accumulated(nrt_module(**common, **greedy)),
        accumulated(nrt_module(**common, **greedy), window=4 // devices),
    ]
    weight = float(sum(p.detach().double().abs().sum() for p in module.policy.parameters()))
    with open(sys.argv[2] + f"/{devices}-{trainer.global_rank}.json", "w") as file:
        parts = float(trainer.callback_metrics.get("train/micro_batches", 1))
        json.dump([before, rows, weight, parts, moved], file)
"""


def run(tmp_path, devices, limit=0):
    file = tmp_path / f"run{devices}.py"
    file.write_text(SCRIPT)
    run_forked(file, devices, tmp_path, limit, processes=devices)
    return [json.loads((tmp_path / f"{devices}-{rank}.json").read_text()) for rank in range(devices)]


def test_two_processes_report_and_train_as_one(tmp_path):
    ((one, *_, alone),) = run(tmp_path, 1)
    (first, first_rows, first_weight, _, moved), (second, second_rows, second_weight, *_) = run(tmp_path, 2)
    assert first == pytest.approx(one, rel=1e-5), "7 rows on 2 processes, none counted twice"
    assert second == pytest.approx(one, rel=1e-5)
    assert not {i for rows in first_rows for i in rows} & {i for rows in second_rows for i in rows}
    assert first_weight == second_weight, "the same weights on both"
    assert moved == pytest.approx(alone, rel=1e-4), "two processes with two micro-batches are one with four"
    assert moved[1] == pytest.approx(moved[2], rel=1e-4), "whether or not they are sampled together"
    (*_, split_weight, parts, _), (*_, other_weight, other_parts, _) = run(tmp_path, 2, limit=100)
    assert parts == other_parts > 1, "as many forward passes on both"
    assert split_weight == other_weight == pytest.approx(first_weight, rel=1e-6), "gradients are summed over processes"
