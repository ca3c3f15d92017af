"""Runs of the real command line that are killed and resumed by `--ckpt_path=auto`."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from faults.killed_runs import Kill, whole_lines

TESTS = Path(__file__).parents[1]


def rows(split: str, size: int) -> dict[str, Any]:
    """Generated rows."""
    return {"class_path": "nrt_lightning.RegisterPrograms", "init_args": {"split": split, "size": size}}


def callback(class_path: str, **settings: Any) -> dict[str, Any]:
    """A callback in a config."""
    return {"class_path": class_path, "init_args": settings}


METHOD: dict[str, Any] = {
    "sampling": {"group_size": 4, "max_trace_tokens": 12},
    "schedule": {"class_path": "nrt_lightning.ConstantSchedule", "init_args": {"warmup": 0}},
    "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.001}},
}
BEST_AND_LAST = callback("nrt_lightning.BestAndLast", monitor="val/confidence")
COMMAND_LINES: dict[str, dict[str, Any]] = {
    "command line: BestAndLast, max_steps": {
        "trainer": {"max_steps": 14, "val_check_interval": 4, "callbacks": [BEST_AND_LAST]},
        "method": METHOD,
    },
    "command line: window 4, CSV logger": {
        "trainer": {
            "max_epochs": 2, "log_every_n_steps": 1,
            "logger": {"class_path": "CSVLogger", "init_args": {"save_dir": ".", "name": "csv", "version": "run"}},
            "callbacks": [callback("ModelCheckpoint", every_n_train_steps=3, save_last=True)],
        },
        "data": {"window": 4},
        "method": METHOD,
    },
    "command line: SFT, the trainer's own ModelCheckpoint": {
        "trainer": {"max_epochs": 2}, "class": "SFTModule", "method": {},
    },
}  # fmt: skip


def config(name: str, folder: Path, kill: Kill | None) -> dict[str, Any]:
    """The settings of `fit` for a configuration, with the callbacks that note and kill."""
    given = COMMAND_LINES[name]
    watching = [callback("faults.watching.Notes", path=str(folder / "notes.jsonl"))]
    if kill is not None:
        fields = {name: value for name, value in asdict(kill).items() if name != "rank"}
        watching.append(callback("faults.watching.Killer", **fields | {"number": int(kill.number)}))
    trainer = {
        "accelerator": "cpu", "devices": 1, "logger": False, "default_root_dir": str(folder), "num_sanity_val_steps": 0,
        "enable_progress_bar": False, "limit_val_batches": 1, "enable_model_summary": False,
    } | given["trainer"]  # fmt: skip
    trainer["callbacks"] = [*watching, *trainer.get("callbacks", [])]
    policy = {"class_path": "nrt_lightning.Policy", "init_args": {"model": "embedded:registers-base"}}
    data = {
        "train": rows("train", 24), "val": rows("validation", 6), "batch_size": 3,
        "template": {"class_path": "nrt_lightning.PlainTemplate"},
    }  # fmt: skip
    return {
        "seed_everything": 7,
        "trainer": trainer,
        "model": {
            "class_path": f"nrt_lightning.{given.get('class', 'NRTModule')}",
            "init_args": {"policy": policy} | given["method"],
        },
        "data": {"class_path": "nrt_lightning.QADataModule", "init_args": data | given.get("data", {})},
    }


def run_command_line(name: str, folder: Path, kills: list[Kill]) -> int:
    """Run a configuration, killed at each moment and started again; return how many kills came.

    Raises:
        AssertionError: a part failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
    came = 0
    for kill in [*kills, None]:
        whole_lines(folder)
        (folder / "fit.yaml").write_text(yaml.safe_dump(config(name, folder, kill)))
        with (folder / "log.txt").open("a") as log:
            words = [sys.executable, "-m", "nrt_lightning", "fit", "--config", "fit.yaml", "--ckpt_path=auto"]
            environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
            code = subprocess.run(words, cwd=folder, env=environment, stdout=log, stderr=log, check=False).returncode
        expected = {0} if kill is None else kill.expected
        assert code in expected, f"{kill}: exit code {code}\n" + (folder / "log.txt").read_text()[-3000:]
        if code == 0:
            break
        came += 1
    return came
