"""Every stock callback, logger, profiler and strategy of Lightning works, or is refused with a reason."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import lightning as L
import pytest
import torch
from lightning.pytorch import callbacks, loggers, profilers, strategies
from lightning.pytorch.callbacks import BasePredictionWriter, LambdaCallback
from short_runs import nrt_module, registers, weights

from nrt_lightning import Policy, RegisterPrograms, SFTModule
from strategies.lightning_parts import BY_LIGHTNING, ELSEWHERE, REFUSED, WORKS, parts, table

ROOT = Path(__file__).parents[2]


def test_every_part_is_tried_or_refused():
    """A part of a new release is in none of these lists."""
    known = [*WORKS, *ELSEWHERE, *BY_LIGHTNING, *REFUSED]
    assert sorted(known) == sorted(parts())


def test_the_docs_have_the_table():
    assert table() in (ROOT / "docs/lightning.md").read_text(), "run `python tests/strategies/lightning_parts.py`"


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_part_with_tests_of_its_own_is_in_them(name):
    _, path, word = ELSEWHERE[name]
    assert word in (ROOT / path).read_text()


class Kept(loggers.CSVLogger):
    """A logger that keeps what it is given."""

    def __init__(self, place):
        super().__init__(place)
        self.kept = {}

    def log_metrics(self, metrics, step=None):
        self.kept |= metrics


class Writer(BasePredictionWriter):
    """Counts predictions."""

    def __init__(self):
        super().__init__("batch")
        self.count = 0

    def write_on_batch_end(self, trainer, module, prediction, *args):
        self.count += len(prediction)


class Weights(L.Callback):
    """The weights after each step."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, module, *args):
        self.steps.append(weights(module))


def sft():
    return SFTModule(Policy("embedded:registers-base"), optimizer=lambda p: torch.optim.SGD(p, lr=0.1))


def fit(trainer, tmp_path, callback=None, module=None, **settings):
    note = Weights()
    defaults = {"max_steps": 2, "limit_val_batches": 0, "log_every_n_steps": 1, "logger": Kept(tmp_path)}
    made = trainer(callbacks=[note, *([callback] if callback else [])], **defaults | settings)
    made.fit(module or sft(), registers(window=1))
    return made, note


def averaged(trainer, tmp_path, callback, rate):
    made, note = fit(trainer, tmp_path, callback, max_steps=3)
    first, second, third = note.steps
    for name, weight in made.lightning_module.policy.named_parameters():
        expected = rate(first[name], second[name], third[name])
        torch.testing.assert_close(weight.detach(), expected)
    assert not torch.equal(first[name], third[name])


def try_callback(name, trainer, tmp_path):
    """Run with a callback and see what it is for."""
    kind = getattr(callbacks, name)
    if name == "BasePredictionWriter":
        writer = Writer()
        trainer(callbacks=[writer]).predict(sft(), predicts())
        assert writer.count == 6
    elif name == "EarlyStopping":
        stop = kind("val/confidence", stopping_threshold=-1.0, mode="max", check_on_train_epoch_end=False)
        made, _ = fit(trainer, tmp_path, stop, max_steps=6, limit_val_batches=1, val_check_interval=1)
        assert made.global_step == 1
    elif name == "GradientAccumulationScheduler":
        made, note = fit(trainer, tmp_path, kind({0: 2}))
        assert (made.global_step, len(note.steps)) == (2, 4)
    elif name == "LambdaCallback":
        seen = []
        fit(trainer, tmp_path, kind(on_train_batch_end=lambda *args: seen.append(args)))
        assert len(seen) == 2
    elif name == "ModelCheckpoint":
        fit(trainer, tmp_path, kind(tmp_path / "kept", "{step}", every_n_train_steps=1), enable_checkpointing=True)
        assert (tmp_path / "kept/step=2.ckpt").exists()
    elif name == "OnExceptionCheckpoint":
        fails = LambdaCallback(on_train_batch_end=lambda *args: 1 // 0)
        made = trainer(callbacks=[kind(tmp_path), fails], enable_checkpointing=True, logger=False)
        with pytest.raises(ZeroDivisionError):
            made.fit(sft(), registers())
        assert (tmp_path / "on_exception.ckpt").exists()
    elif name == "Timer":
        made, _ = fit(trainer, tmp_path, kind(timedelta(seconds=0)), max_steps=50)
        assert made.global_step == 0
    elif name == "WeightAveraging":
        averaged(trainer, tmp_path, kind(), lambda a, b, c: (a + b + c) / 3)
    elif name == "EMAWeightAveraging":
        averaged(trainer, tmp_path, kind(decay=0.25), lambda a, b, c: 0.25 * (0.25 * a + 0.75 * b) + 0.75 * c)
    elif name == "ThroughputMonitor":
        made, _ = fit(trainer, tmp_path, kind(batch_size_fn=len), max_steps=4)
        assert any(key.endswith("samples") for key in made.logger.kept)
    else:
        shows = "Progress" in name or "Summary" in name
        bars = {"enable_progress_bar": True} if "Progress" in name else {}
        made, note = fit(trainer, tmp_path, kind(), nrt_module(), **bars)
        wanted = {"LearningRateMonitor": "lr-AdamW", "DeviceStatsMonitor": "cpu_percent"}.get(name, "train/loss")
        assert shows or any(wanted in key for key in made.logger.kept)
        assert len(note.steps) == 2


def predicts():
    return registers(predict=RegisterPrograms("test", 6))


@pytest.mark.parametrize("name", [n for n in WORKS if hasattr(callbacks, n)])
def test_a_callback_works(name, trainer, tmp_path):
    try_callback(name, trainer, tmp_path)


SERVICES = {"CometLogger": "comet_ml", "LitLogger": "litlogger", "MLFlowLogger": "mlflow", "WandbLogger": "wandb"}
FLAGS = {"CometLogger": "comet._COMET_AVAILABLE", "LitLogger": "litlogger._LITLOGGER_AVAILABLE",
         "MLFlowLogger": "mlflow._MLFLOW_AVAILABLE", "WandbLogger": "wandb._WANDB_AVAILABLE"}  # fmt: skip


def stand_in(name, monkeypatch):
    """A module in the place of a service's package, that notes all calls."""
    service = MagicMock()
    if name == "CometLogger":  # a mock has no such names by itself
        experiment = service.start.return_value
        for call in ("log_parameters", "log_metrics", "set_epoch", "set_model_graph"):
            setattr(type(experiment), f"__internal_api__{call}__", getattr(service, call))
    if name == "WandbLogger":
        service.run = None
    subs = {
        "MLFlowLogger": ["tracking", "entities", "tracking.context", "tracking.context.registry", "utils.mlflow_tags"]
    }
    monkeypatch.setitem(sys.modules, SERVICES[name], service)
    for sub in subs.get(name, []):
        monkeypatch.setitem(sys.modules, f"mlflow.{sub}", service)
    kinds = SimpleNamespace(RunDisabled=type("RunDisabled", (), {}), Run=type("Run", (), {}))
    for sub in ("sdk.lib", "wandb_run") if name == "WandbLogger" else ():
        monkeypatch.setitem(sys.modules, f"wandb.{sub}", kinds)
    monkeypatch.setattr(f"lightning.pytorch.loggers.{FLAGS[name]}", True)
    return service


@pytest.mark.parametrize("name", [n for n in WORKS if n.endswith("Logger")])
def test_a_logger_gets_the_metrics(name, trainer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    service = stand_in(name, monkeypatch) if name in SERVICES else None
    settings = {"name": "run"} if name == "LitLogger" else {} if service else {"save_dir": tmp_path}
    made = getattr(loggers, name)(**settings)
    fit(trainer, tmp_path, logger=made)
    text = str(service.mock_calls) if service else "".join(
        path.read_bytes().decode("latin-1") for path in Path(made.log_dir).rglob("*") if path.is_file()
    )  # fmt: skip
    assert "train/loss" in text


@pytest.mark.parametrize("name", [n for n in WORKS if n.endswith("Profiler")])
def test_a_profiler_profiles(name, trainer, tmp_path):
    settings = {} if name == "PassThroughProfiler" else {"dirpath": tmp_path, "filename": "profile"}
    made, _ = fit(trainer, tmp_path, max_steps=1, profiler=getattr(profilers, name)(**settings))
    assert made.global_step == 1
    assert name == "PassThroughProfiler" or list(tmp_path.glob("*profile*"))


def test_the_strategy_of_one_device_is_the_default(trainer):
    assert type(trainer().strategy) is strategies.SingleDeviceStrategy
