"""Checkpoints are loaded into modules from wherever they are, and run no code of a file."""

from __future__ import annotations

import io
import pickle

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from jsonargparse import Namespace
from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint
from short_runs import nrt_module, registers, weights

from nrt_lightning import (
    ConstantSchedule,
    FrozenReference,
    GroupNormalized,
    InitialBaseline,
    InputError,
    NRTModule,
    Policy,
)
from nrt_lightning.cli.checkpoints import find_checkpoint
from nrt_lightning.cli.trained import read_trained
from nrt_lightning.strategies.checkpoint_io import SafeCheckpointIO


class Extra:
    """An object that is no plain value."""


@pytest.fixture(autouse=True)
def memory():
    MemoryFileSystem.store.clear()


def saved(trainer, path, module=None, extra=None, **settings):
    """A checkpoint after two steps."""
    module = module or nrt_module()
    add = LambdaCallback(on_save_checkpoint=lambda _, __, checkpoint: checkpoint.update(extra=extra or 1))
    made = trainer(callbacks=[add], max_steps=2, limit_val_batches=0, **settings)
    made.fit(module, registers())
    made.save_checkpoint(path)
    return module


def same(module, other):
    ours, theirs = weights(module), weights(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def with_baseline(path=None):
    settings = {"baseline_scorer": InitialBaseline(), "advantage": GroupNormalized(baseline="clip")}
    if path is None:
        return nrt_module(**settings)
    return NRTModule.load_from_checkpoint(path, policy=Policy("embedded:registers-base"), **settings)


def test_a_module_with_the_initial_models_baseline_is_loaded(trainer, tmp_path):
    first = saved(trainer, tmp_path / "a.ckpt", with_baseline())
    loaded = with_baseline(tmp_path / "a.ckpt")
    same(first, loaded)
    scorer = loaded.method.baseline_scorer
    assert scorer.weights == first.method.baseline_scorer.weights, "of the weights before training"
    trainer(max_steps=1, limit_val_batches=0).fit(loaded, registers())
    assert scorer.cache.directory == first.method.baseline_scorer.cache.directory


class Own(NRTModule):
    """Of a user, as in Lightning's documentation."""

    def __init__(self, policy, rate=0.5, reference=None):
        super().__init__(policy, reference=reference or FrozenReference())
        self.save_hyperparameters(ignore=["policy", "reference"])
        self.rate = rate


def test_a_subclass_that_saves_its_own_settings_is_loaded(trainer, tmp_path):
    first = saved(trainer, tmp_path / "a.ckpt", Own(Policy("embedded:registers-base"), rate=0.25))
    loaded = Own.load_from_checkpoint(tmp_path / "a.ckpt", policy=Policy("embedded:registers-base"))
    assert loaded.rate == 0.25
    assert dict(first.hparams) == {"rate": 0.25}
    same(first, loaded)


@pytest.mark.parametrize("scheme", ["memory://kept", "file://{}"])
def test_checkpoints_of_other_file_systems_are_written_resumed_and_loaded(scheme, trainer, tmp_path):
    place = scheme.format(tmp_path)
    constant = {"schedule": ConstantSchedule(0)}
    first = saved(trainer, f"{place}/a.ckpt", nrt_module(**constant))
    policy = Policy("embedded:registers-base")
    same(first, NRTModule.load_from_checkpoint(f"{place}/a.ckpt", policy=policy))
    resumed = nrt_module(**constant)
    run = trainer(max_steps=3, limit_val_batches=0)
    run.fit(resumed, registers(), ckpt_path=f"{place}/a.ckpt")
    whole = nrt_module(**constant)
    trainer(max_steps=3, limit_val_batches=0).fit(whole, registers())
    same(resumed, whole)


def test_commands_read_checkpoints_of_other_file_systems():
    settings = {"class_path": "nrt_lightning.Policy", "init_args": {"model": "embedded:registers-base"}}
    policy = Policy("embedded:registers-base").load()
    state = {f"policy.{name}": weight + 1 for name, weight in policy.state_dict().items()}
    with fsspec.open("memory://kept/a.ckpt", "wb") as file:
        torch.save({"state_dict": state, "hyper_parameters": {"policy": settings}}, file)
    trained = read_trained("memory://kept/a.ckpt").load()
    assert all(torch.equal(weight, state[f"policy.{name}"]) for name, weight in trained.state_dict().items())
    with pytest.raises(InputError, match=r"memory://kept/b\.ckpt"):
        read_trained("memory://kept/b.ckpt")


def test_a_checkpoint_callback_writes_to_another_file_system(trainer):
    keep = ModelCheckpoint("memory://runs/kept", "best", save_last=True, every_n_train_steps=1)
    made = trainer(callbacks=[keep], max_steps=2, limit_val_batches=0, enable_checkpointing=True)
    made.fit(nrt_module(), registers())
    assert keep.last_model_path == "memory://runs/kept/last.ckpt"
    more = ModelCheckpoint("memory://runs/kept", "best", save_last=True, every_n_train_steps=1)
    again = trainer(callbacks=[more], max_steps=3, limit_val_batches=0, enable_checkpointing=True)
    again.fit(nrt_module(), registers(), ckpt_path=keep.last_model_path)
    assert again.global_step == 3
    assert more.best_model_path.startswith("memory://")


def test_where_checkpoints_of_another_file_system_are_meant_by_a_word_the_path_is_asked_for():
    callback = {"class_path": "nrt_lightning.BestAndLast", "init_args": {"dirpath": "memory://kept"}}
    config = Namespace(ckpt_path="auto", trainer=Namespace(callbacks=[callback]), model=None)
    with pytest.raises(InputError, match=r"ckpt_path='auto'.*memory://kept/last.ckpt"):
        find_checkpoint("fit", config)


@pytest.mark.parametrize("scheme", ["memory://kept", "file://{}", "{}"])
def test_settings_of_another_file_system_are_checked_too(scheme, trainer, tmp_path):
    place = f"{scheme.format(tmp_path)}/a.ckpt"
    saved(trainer, place)
    checkpoint = SafeCheckpointIO().load_checkpoint(place)
    SafeCheckpointIO().save_checkpoint(checkpoint | {"hyper_parameters": {"trust_remote_code": True}}, place)
    with pytest.raises(InputError, match="trust_remote_code"):
        NRTModule.load_from_checkpoint(place, policy=Policy("embedded:registers-base"))


@pytest.mark.parametrize("scheme", ["memory://kept", "{}"])
def test_objects_of_a_file_are_built_only_with_weights_only_false(scheme, trainer, tmp_path):
    place, policy = f"{scheme.format(tmp_path)}/a.ckpt", Policy("embedded:registers-base")
    first = saved(trainer, place, extra=Extra())
    with pytest.raises(InputError, match=r"a\.ckpt.*weights_only=False"):
        trainer(max_steps=3).fit(nrt_module(), registers(), ckpt_path=place)
    with pytest.raises(InputError, match=r"a\.ckpt.*weights_only=False"):
        NRTModule.load_from_checkpoint(place, policy=policy)
    same(first, NRTModule.load_from_checkpoint(place, policy=policy, weights_only=False))
    run = trainer(max_steps=3, limit_val_batches=0)
    run.fit(nrt_module(), registers(), ckpt_path=place, weights_only=False)
    assert run.global_step == 3


def test_files_of_an_old_format_are_checked_alike(trainer, tmp_path):
    """The check of the file and Lightning's own reading follow the same setting."""
    place = tmp_path / "a.ckpt"
    saved(trainer, place)
    checkpoint = torch.load(place, weights_only=True)
    torch.save(checkpoint | {"extra": Extra()}, place, _use_new_zipfile_serialization=False)
    config = Namespace(ckpt_path=str(place))
    with pytest.raises(InputError, match=r"a\.ckpt"):
        find_checkpoint("fit", config)
    assert find_checkpoint("fit", Namespace(ckpt_path=str(place), weights_only=False)) == str(place)
    run = trainer(max_steps=3, limit_val_batches=0)
    run.fit(nrt_module(), registers(), ckpt_path=place, weights_only=False)
    assert run.global_step == 3


def test_an_open_file_is_read(trainer, tmp_path):
    first = saved(trainer, tmp_path / "a.ckpt")
    file = io.BytesIO((tmp_path / "a.ckpt").read_bytes())
    same(first, NRTModule.load_from_checkpoint(file, policy=Policy("embedded:registers-base")))
    with pytest.raises(InputError, match="weights_only"):
        NRTModule.load_from_checkpoint(io.BytesIO(pickle.dumps(Extra())))
