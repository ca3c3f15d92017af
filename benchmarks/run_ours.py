"""Measures steps of `NRTModule` under Lightning's Trainer; a subprocess of `benchmarks.step`."""

from __future__ import annotations

import logging
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from benchmarks.measure import Phases
from benchmarks.run import WARM_UP, Run, Sampled, main
from benchmarks.workload import build_policy, prompts
from nrt_lightning import NRTModule, OnPolicyRollout, models
from nrt_lightning.modules.schedules import LinearSchedule


class Meter(L.Callback):
    """Divides a run into phases and steps. A step lasts from the end of the previous one to its end."""

    def __init__(self, phases: Phases) -> None:
        self.phases = phases
        self.sampled: list[Sampled] = []

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        rollout = next(c for c in trainer.callbacks if isinstance(c, OnPolicyRollout))
        self.phases.wrap(rollout, "on_train_batch_start", "rollout")
        self.phases.wrap(pl_module, "training_step", "forward")
        self.phases.wrap(pl_module, "backward", "backward")
        self.phases.wrap(pl_module, "optimizer_step", "optimizer")  # without its inner phases

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.phases.end_step()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        rollouts = batch.rollouts
        ended = int((~rollouts.truncated).sum())
        self.sampled.append({"tokens": int(rollouts.segments.trace_mask.sum()) + ended, "ended": ended})
        self.phases.end_step()


def train(run: Run, phases: Phases) -> list[Sampled]:
    """Train, and return the number of tokens that each step sampled."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    steps = WARM_UP + run.steps
    meter = Meter(phases)
    policy = build_policy(
        run.work,
        dtype=run.dtype,
        scoring=getattr(models, run.scoring)(),
        adapter=models.LoRA(rank=run.rank) if run.rank else None,
        activation_checkpointing=run.checkpointing,
    )
    module = NRTModule(policy, sampling=run.work.sampling, schedule=LinearSchedule(warmup=0))
    trainer = L.Trainer(
        accelerator="cpu",
        precision="bf16-mixed" if run.half else "32-true",
        max_steps=steps,
        gradient_clip_val=1.0,
        callbacks=[meter],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    torch.manual_seed(0)
    trainer.fit(module, DataLoader([prompts(run.work, step) for step in range(steps)], batch_size=None))
    return meter.sampled


if __name__ == "__main__":
    main(train)
