"""A short run with all callbacks that show something, in one process or two: `python looking.py FOLDER` runs two."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from short_runs import nrt_module, registers

from nrt_lightning import (
    AnswerHeatMap,
    AnswerSettings,
    BenchmarkEvaluation,
    RegisterPrograms,
    RewardCorrectness,
    RunReport,
    Sampling,
    SelfAssessment,
    StepAxis,
    TraceSamples,
)

ROWS = 5  # of validation: two processes have three and two of them


def fit(processes: int, folder: Path) -> None:
    """Train without a change of the weights, four prompts a step, and note the figures of each process."""
    L.seed_everything(7)
    sampling = Sampling(group_size=2, max_trace_tokens=6, max_answer_tokens=6)
    module = nrt_module(sampling=sampling, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0))
    sums = [{"question": row.question, "answer": row.answer} for row in RegisterPrograms("test", 3).rows()]
    callbacks = [
        StepAxis("rollouts"),
        TraceSamples(1, val_rows=4),
        AnswerHeatMap(rows=3),
        SelfAssessment(every_n_steps=1, rows=3),
        RewardCorrectness(every_n_steps=1, rows=5),
        BenchmarkEvaluation("sums", sums, answers=AnswerSettings(samples=2), batch_size=1),
        RunReport(),
    ]
    trainer = L.Trainer(
        accelerator="cpu", devices=processes, strategy="ddp" if processes > 1 else "auto", max_steps=2,
        logger=TensorBoardLogger(folder, "", "log"), callbacks=callbacks, default_root_dir=folder,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=1,
        val_check_interval=1, log_every_n_steps=1,
    )  # fmt: skip
    val = RegisterPrograms("validation", ROWS)
    trainer.fit(module, registers(val=val, batch_size=4 // processes, eval_batch_size=2))
    figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
    (folder / f"{trainer.global_rank}.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    fit(2, Path(sys.argv[1]))
