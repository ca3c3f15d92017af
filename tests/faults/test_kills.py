"""A run that is killed and resumed several times does exactly what it would have done without."""

from __future__ import annotations

import signal
from datetime import timedelta

import pytest
from faults.killed_runs import Scenario, differences, run_with_kills
from lightning.pytorch.callbacks import ModelCheckpoint
from short_runs import nrt_module

from nrt_lightning import (
    BestAndLast,
    ConstantSchedule,
    EMADeviationFilter,
    EMAReference,
    NRTLoss,
    Policy,
    Sampling,
    SFTModule,
)


def every(steps: int, **settings):
    return lambda path: [ModelCheckpoint(path, every_n_train_steps=steps, save_last=True, **settings)]


def filtered():
    return nrt_module(
        schedule=ConstantSchedule(warmup=0),
        filters=[EMADeviationFilter(beta=1.0, momentum=0.5, average_from=1, filter_from=2)],
        sampling=Sampling(group_size=4, max_trace_tokens=12, refill_rounds=1),
        reference=EMAReference(update_rate=0.5, every_n_steps=2),
        loss=NRTLoss(kl_coef=0.1),
    )


WINDOWS = {"window": 4}
SCENARIOS = {  # 24 rows / 3 = 8 micro-batches an epoch
    "two resumes across an epoch's end": (Scenario(every(4, save_top_k=0)), [("rollout", 13), ("rollout", 17)]),
    "three epochs, four resumes": (
        Scenario(every(2, save_top_k=0)),
        [("forward", 5), ("backward", 8), ("optimizer", 16), ("rollout", 20)],
    ),
    "odd cadence, window 4, accumulation 4": (
        Scenario(every(3, save_top_k=0), 6, WINDOWS, {"accumulate_grad_batches": 4}),
        [("forward", 13), ("forward", 14), ("forward", 22)],
    ),
    "odd cadence, window 4, accumulation 2": (
        Scenario(every(3, save_top_k=0), 10, WINDOWS, {"accumulate_grad_batches": 2}),
        [("forward", 9), ("rollout", 13), ("backward", 17)],
    ),
    "every step, window 4": (
        Scenario(every(1), 20, WINDOWS),
        [("forward", 5), ("saved", 7), ("forward", 10), ("optimizer", 18)],
    ),
    "accumulation without windows": (
        Scenario(every(1, save_top_k=0), 8, {}, {"accumulate_grad_batches": 2}),
        [("forward", 4), ("forward", 5), ("forward", 9)],
    ),
    "monitor, validation inside a window": (
        Scenario(
            lambda path: [ModelCheckpoint(path, monitor="val/confidence", save_last=True, save_top_k=2)], 20, WINDOWS,
            {"val_check_interval": 3, "check_val_every_n_epoch": None},
        ),
        [("forward", 7), ("validation", 11), ("forward", 17)],
    ),
    "time interval": (
        Scenario(
            lambda path: [ModelCheckpoint(path, train_time_interval=timedelta(seconds=0), save_last=True)], 16, WINDOWS
        ),
        [("forward", 6), ("forward", 11)],
    ),
    "window_epochs 2, saved at the epoch's end": (
        Scenario(lambda path: [BestAndLast("val/confidence", dirpath=path)], None, {"window": 2, "window_epochs": 2}),
        [("validation", 15), ("validated", 15), ("epoch_end", 31), ("forward", 37)],
    ),
    "validation after the save": (
        Scenario(every(2, save_top_k=0), 20, {}, {"val_check_interval": 2, "check_val_every_n_epoch": None}),
        [("validation", 5), ("validation", 7), ("saved", 9), ("validated", 15)],
    ),
    "filters, refill and EMA": (
        Scenario(every(2), 14, {"window": 2}, module=filtered),
        [("rollout", 5), ("forward", 11)],
    ),
    "signals": (
        Scenario(every(100), 14, {"window": 2}, {"val_check_interval": 4, "check_val_every_n_epoch": None}),
        [("forward", 2, signal.SIGTERM), ("validation", 7, signal.SIGUSR1), ("batch_end", 9, signal.SIGINT)],
    ),
    "SFT": (
        Scenario(every(3), module=lambda: SFTModule(Policy("embedded:registers-base"))),
        [("forward", 4), ("forward", 10), ("backward", 17)],
    ),
}  # fmt: skip


DEFAULT = (
    "two resumes across an epoch's end",
    "odd cadence, window 4, accumulation 4",
)


@pytest.mark.parametrize(
    "name", [name if name in DEFAULT else pytest.param(name, marks=pytest.mark.faults) for name in SCENARIOS]
)
def test_killed_and_resumed_equals_uninterrupted(name, tmp_path):
    scenario, kills = SCENARIOS[name]
    whole = run_with_kills(scenario, tmp_path / "whole", [])
    parts = run_with_kills(scenario, tmp_path / "parts", kills)
    assert not differences(whole, parts)
