"""A run that is killed and resumed several times does exactly what it would have done without."""

from __future__ import annotations

import signal
from datetime import timedelta

import pytest
from faults.killed_runs import Kill, Scenario, differences, run_with_kills
from faults.scenarios import SCENARIOS, WINDOWS, every, filtered
from lightning.pytorch.callbacks import ModelCheckpoint

from nrt_lightning import BestAndLast, Policy, SFTModule

CASES = {  # 24 rows / 3 = 8 micro-batches an epoch
    "two resumes across an epoch's end": (Scenario(every(4, save_top_k=0)), [Kill("rollout", 13), Kill("rollout", 17)]),
    "three epochs, four resumes": (
        Scenario(every(2, save_top_k=0)),
        [Kill("forward", 5), Kill("backward", 8), Kill("optimizer", 16), Kill("rollout", 20)],
    ),
    "odd cadence, window 4, accumulation 4": (
        Scenario(every(3, save_top_k=0), 6, WINDOWS, {"accumulate_grad_batches": 4}),
        [Kill("forward", 13), Kill("forward", 14), Kill("forward", 22)],
    ),
    "odd cadence, window 4, accumulation 2": (
        Scenario(every(3, save_top_k=0), 10, WINDOWS, {"accumulate_grad_batches": 2}),
        [Kill("forward", 9), Kill("rollout", 13), Kill("backward", 17)],
    ),
    "every step, window 4": (
        Scenario(every(1), 20, WINDOWS),
        [Kill("forward", 5), Kill("saved", 7), Kill("forward", 10), Kill("optimizer", 18)],
    ),
    "accumulation without windows": (
        Scenario(every(1, save_top_k=0), 8, {}, {"accumulate_grad_batches": 2}),
        [Kill("forward", 4), Kill("forward", 5), Kill("forward", 9)],
    ),
    "monitor, validation inside a window": (
        Scenario(
            lambda path: [ModelCheckpoint(path, monitor="val/confidence", save_last=True, save_top_k=2)], 20, WINDOWS,
            {"val_check_interval": 3, "check_val_every_n_epoch": None},
        ),
        [Kill("forward", 7), Kill("validation", 11), Kill("forward", 17)],
    ),
    "time interval": (
        Scenario(
            lambda path: [ModelCheckpoint(path, train_time_interval=timedelta(seconds=0), save_last=True)], 16, WINDOWS
        ),
        [Kill("forward", 6), Kill("forward", 11)],
    ),
    "window_epochs 2, saved at the epoch's end": (
        Scenario(lambda path: [BestAndLast("val/confidence", dirpath=path)], None, {"window": 2, "window_epochs": 2}),
        [Kill("validation", 15), Kill("validated", 15), Kill("epoch_end", 31), Kill("forward", 37)],
    ),
    "validation after the save": (
        Scenario(every(2, save_top_k=0), 20, {}, {"val_check_interval": 2, "check_val_every_n_epoch": None}),
        [Kill("validation", 5), Kill("validation", 7), Kill("saved", 9), Kill("validated", 15)],
    ),
    "filters, refill and EMA": (
        Scenario(every(2), 14, {"window": 2}, module=filtered),
        [Kill("rollout", 5), Kill("forward", 11)],
    ),
    "signals": (
        Scenario(every(100), 14, {"window": 2}, {"val_check_interval": 4, "check_val_every_n_epoch": None}),
        [
            Kill("forward", 2, signal.SIGTERM),
            Kill("validation", 7, signal.SIGUSR1),
            Kill("batch_end", 9, signal.SIGINT),
        ],
    ),
    "SFT": (
        Scenario(every(3), module=lambda: SFTModule(Policy("embedded:registers-base"))),
        [Kill("forward", 4), Kill("forward", 10), Kill("backward", 17)],
    ),
    "LoRA with dropout": (SCENARIOS["LoRA with dropout"], [Kill("forward", 5), Kill("saving", 9, delay=1)]),
    "AheadRollout": (SCENARIOS["AheadRollout"], [Kill("rollout", 6), Kill("backward", 9)]),
    "CollapseDetector, RestoreCheckpoint": (
        SCENARIOS["CollapseDetector, RestoreCheckpoint"], [Kill("forward", 5), Kill("optimizer", 12)],
    ),
    "CSV logger": (SCENARIOS["CSV logger"], [Kill("forward", 5), Kill("validation", 11)]),
    "max_steps, a validation after the last": (
        SCENARIOS["max_steps, a validation after the last"], [Kill("validation", 13), Kill("validated", 13)],
    ),
    "two processes of DDP": (
        SCENARIOS["two processes of DDP"], [Kill("forward", 3, rank=1), Kill("backward", 6, signal.SIGTERM, rank=1)],
    ),
    "two processes of FSDP2": (
        SCENARIOS["two processes of FSDP2"], [Kill("saving", 3), Kill("forward", 7, rank=1)],
    ),
}  # fmt: skip


DEFAULT = (
    "two resumes across an epoch's end",
    "odd cadence, window 4, accumulation 4",
)


@pytest.mark.parametrize(
    "name", [name if name in DEFAULT else pytest.param(name, marks=pytest.mark.faults) for name in CASES]
)
def test_killed_and_resumed_equals_uninterrupted(name, tmp_path):
    scenario, kills = CASES[name]
    run_with_kills(scenario, tmp_path / "whole", [])
    run_with_kills(scenario, tmp_path / "parts", kills)
    assert not differences(tmp_path / "whole", tmp_path / "parts")
