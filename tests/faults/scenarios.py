"""Configurations whose runs are killed: 24 rows, 3 a micro-batch, 8 micro-batches an epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from faults.killed_runs import Scenario
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import ModelParallelStrategy
from short_runs import nrt_module

from nrt_lightning import (
    AdaptiveEntropyBonus,
    AheadRollout,
    AnswerConditioned,
    BestAndLast,
    CollapseDetector,
    ConstantSchedule,
    EMADeviationFilter,
    EMAReference,
    LoRA,
    NRTLoss,
    Policy,
    RestoreCheckpoint,
    Sampling,
    SelfAssessment,
    SFTModule,
    ShareByReward,
    StepGains,
)
from nrt_lightning.callbacks.collapse.signs import CollapseSign
from nrt_lightning.losses import CISPO

CONSTANT = ConstantSchedule(warmup=0)
WINDOWS = {"window": 4}
EVERY_TWO = {"val_check_interval": 2, "check_val_every_n_epoch": None}


def every(steps: int, **settings: Any):
    """A ModelCheckpoint that saves every few steps."""
    return lambda path: [ModelCheckpoint(path, every_n_train_steps=steps, **{"save_last": True, **settings})]


def filtered():
    return nrt_module(
        schedule=CONSTANT,
        filters=[EMADeviationFilter(beta=1.0, momentum=0.5, average_from=1, filter_from=2)],
        sampling=Sampling(group_size=4, max_trace_tokens=12, refill_rounds=1),
        reference=EMAReference(update_rate=0.5, every_n_steps=2),
        loss=NRTLoss(kl_coef=0.1),
    )


def with_lora():
    return nrt_module(
        schedule=CONSTANT, policy=Policy("embedded:registers-base", adapter=LoRA(rank=4, dropout=0.5, dtype="float32"))
    )


def with_answers():
    share = ShareByReward(start=0.5, high=4.0)
    return nrt_module(
        schedule=CONSTANT,
        answer_conditioned=AnswerConditioned(share),
        step_credit=StepGains(),
        max_tokens_per_micro_batch="auto",
    )


def with_surplus():
    return nrt_module(
        schedule=CONSTANT,
        filters=[EMADeviationFilter(beta=1.0, momentum=0.5, average_from=1, filter_from=2)],
        sampling=Sampling(group_size=4, max_trace_tokens=12, refill_rounds=2, keep_surplus=True),
        loss=NRTLoss(surrogate=CISPO(), entropy_bonus=AdaptiveEntropyBonus(0.001, target=0.5)),
    )


def off_policy():
    return nrt_module(schedule=CONSTANT, loss=NRTLoss(surrogate=CISPO()))


class EverySixthStep(CollapseSign):
    """A sign of collapse at regular steps."""

    def __call__(self, now, past):
        return "it is a sixth step" if now.step % 6 == 0 else None


def watched(directory: Path):
    restore = RestoreCheckpoint(str(directory / "kept"), keep=0.0)
    return [CollapseDetector(every_n_steps=1, patience=1, prompts=6, signs=[EverySixthStep()], actions=[restore])]


SCENARIOS = {
    "the trainer's own ModelCheckpoint": Scenario(),
    "monitor": Scenario(
        lambda path: [ModelCheckpoint(path, monitor="val/confidence", save_last=True)], 20,
        trainer={"val_check_interval": 3, "check_val_every_n_epoch": None},
    ),
    "top-k": Scenario(
        lambda path: [ModelCheckpoint(path, monitor="val/confidence", save_top_k=2)], 20, trainer=EVERY_TWO
    ),
    "link": Scenario(every(2, save_last="link", save_top_k=1), 20),
    "no dirpath": Scenario(lambda path: [ModelCheckpoint(every_n_train_steps=3, save_last=True)], 20),
    "max_steps, a validation after the last": Scenario(
        lambda path: [BestAndLast("val/confidence", dirpath=path)], 14, trainer=EVERY_TWO
    ),
    "CSV logger": Scenario(
        every(2, save_top_k=0), 20, trainer=EVERY_TWO | {"log_every_n_steps": 1},
        logger=lambda directory: CSVLogger(directory, name="csv", version="run", flush_logs_every_n_steps=1),
    ),
    "SFT": Scenario(every(3), module=lambda: SFTModule(Policy("embedded:registers-base"))),
    "window 4, accumulation 1": Scenario(every(1), 20, WINDOWS),
    "window 4, accumulation 2": Scenario(every(2), 10, WINDOWS, {"accumulate_grad_batches": 2}),
    "window 4, accumulation 4": Scenario(every(1), 6, WINDOWS, {"accumulate_grad_batches": 4}),
    "odd cadence": Scenario(every(3, save_top_k=0), 20, WINDOWS),
    "window_epochs 2": Scenario(
        lambda path: [BestAndLast("val/confidence", dirpath=path)], None, {"window": 2, "window_epochs": 2},
        {"max_epochs": 2},
    ),
    "filters, EMA and refill": Scenario(every(2), 14, {"window": 2}, module=filtered),
    "answers in prompts, step credit": Scenario(every(2), 16, module=with_answers),
    "kept surplus, entropy bonus": Scenario(
        every(2), 14, {"window": 2}, module=with_surplus,
        callbacks=lambda directory: [SelfAssessment(every_n_steps=3, rows=2)],
    ),
    "LoRA with dropout": Scenario(every(2), 20, module=with_lora),
    "AheadRollout": Scenario(
        every(2), 16, {"window": 2}, module=off_policy, callbacks=lambda directory: [AheadRollout(progress=False)]
    ),
    "CollapseDetector, RestoreCheckpoint": Scenario(every(2), 16, callbacks=watched),
    "two processes of DDP": Scenario(every(2), 10, processes=2, strategy=lambda: "ddp"),
    "two processes of FSDP2": Scenario(
        every(2), 10, processes=2,
        strategy=lambda: ModelParallelStrategy(2, 1, save_distributed_checkpoint=True),
    ),
}  # fmt: skip
