"""A misspelled metric of a checkpoint or of early stopping is refused before training."""

from __future__ import annotations

from typing import Any

import lightning as L
import pytest
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from short_runs import nrt_module, registers

from nrt_lightning import BestAndLast, InputError, SFTModule


def trainer(callback: L.Callback, *others: L.Callback) -> L.Trainer:
    return L.Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[callback, *others]
    )


@pytest.mark.parametrize(
    ("callback", "words"),
    [
        (BestAndLast("val/exact_mach"), r"BestAndLast\.monitor='val/exact_mach'.*'val/exact_match'"),
        (EarlyStopping("exact_match"), r"EarlyStopping\.monitor='exact_match'.*'val/exact_match'"),
        (ModelCheckpoint(monitor="val_confidence"), r"ModelCheckpoint\.monitor='val_confidence'.*'val/confidence'"),
    ],
    ids=["best_and_last", "early_stopping", "model_checkpoint"],
)
def test_a_metric_that_is_not_logged_is_refused_before_weights_are_read(callback: Any, words: str) -> None:
    module = nrt_module()
    with pytest.raises(InputError, match=words):
        trainer(callback).fit(module, registers())
    assert module.policy.model is None


def test_a_metric_of_the_training_is_refused_after_the_first_step(tmp_path) -> None:
    wrong = EarlyStopping("train/rewart", check_on_train_epoch_end=True)
    runner = trainer(wrong)
    with pytest.raises(InputError, match=r"'train/rewart'.*'train/reward'"):
        runner.fit(nrt_module(), registers())
    assert runner.global_step == 1


def test_metrics_that_are_logged_are_taken(tmp_path) -> None:
    saving = [ModelCheckpoint(tmp_path / name, monitor=name) for name in ("val/marker_rate", "step")]
    callbacks = [EarlyStopping("train/reward"), *saving]
    runner = trainer(*callbacks)
    runner.fit(nrt_module(), registers())
    assert runner.global_step == 2


NO_ROWS = "there are no validation rows"


def test_rows_that_are_loaded_later_are_not_missed(quiet_trainer, tmp_path, caplog) -> None:
    saves = BestAndLast("val/confidence", dirpath=str(tmp_path / "c"))
    settings = {"max_epochs": 2, "max_steps": -1, "check_val_every_n_epoch": 2, "limit_val_batches": 1}
    quiet_trainer(callbacks=[saves], enable_checkpointing=True, limit_train_batches=1, **settings).fit(
        nrt_module(), registers()
    )
    assert (tmp_path / "c" / "best.ckpt").exists()
    assert NO_ROWS not in caplog.text


@pytest.mark.parametrize(
    ("settings", "data"),
    [
        ({"limit_val_batches": 0}, {}),
        ({"limit_val_batches": 1}, {"val": None}),
        ({"limit_val_batches": 1, "check_val_every_n_epoch": 2}, {"val": None}),
    ],
)
def test_a_run_without_validation_is_told_once(quiet_trainer, tmp_path, caplog, settings, data) -> None:
    saves = BestAndLast("val/confidence", dirpath=str(tmp_path / "c"))
    settings = {"max_epochs": 2, "max_steps": -1, "limit_train_batches": 1} | settings
    quiet_trainer(callbacks=[saves], enable_checkpointing=True, **settings).fit(nrt_module(), registers(**data))
    assert caplog.text.count(NO_ROWS) == 1


class Mine(L.Callback):
    """Of the user, which may log anything."""


def test_with_parts_of_the_user_any_name_is_taken(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # where Lightning's own checkpoint is written
    callback = EarlyStopping("val/of_mine", strict=False)
    runner = trainer(callback, Mine())
    runner.fit(nrt_module(), registers())
    assert runner.global_step == 2


def test_answers_alone_have_the_same_check() -> None:
    module = SFTModule(nrt_module().policy)
    with pytest.raises(InputError, match=r"'val/los'"):
        trainer(EarlyStopping("val/los")).fit(module, registers())
