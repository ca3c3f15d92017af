"""Parts of Lightning that cannot work are refused with a reason, before any weights are read."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import callbacks, profilers, strategies
from lightning.pytorch.tuner import Tuner
from short_runs import registers
from torch.utils.data import DataLoader

from nrt_lightning import InputError
from nrt_lightning.strategies.refused import STRATEGIES, check_launcher, check_parts, check_supported
from strategies.lightning_parts import REFUSED, strategy_names
from strategies.test_lightning_parts import predicts, sft


def refused_callback(name):
    return {
        "BatchSizeFinder": lambda: callbacks.BatchSizeFinder(),
        "LearningRateFinder": lambda: callbacks.LearningRateFinder(),
        "ModelPruning": lambda: callbacks.ModelPruning("l1_unstructured", amount=0.5),
        "StochasticWeightAveraging": lambda: callbacks.StochasticWeightAveraging(1e-2),
        "BackboneFinetuning": lambda: callbacks.BackboneFinetuning(),
        "BaseFinetuning": lambda: type("Own", (callbacks.BaseFinetuning,), {})(),
    }[name]()


@pytest.mark.parametrize("name", [n for n in REFUSED if hasattr(callbacks, n)])
def test_a_callback_that_cannot_work_is_refused(name, trainer):
    callback = refused_callback(name)
    with pytest.raises(InputError, match=rf"trainer\.callbacks has {type(callback).__name__}, which .*(Use|Set|Prune)"):
        trainer(callbacks=[callback]).fit(sft(), registers())


@pytest.mark.parametrize("tune", ["lr_find", "scale_batch_size"])
def test_a_tuner_is_refused(tune, trainer):
    with pytest.raises(InputError, match=r"max_tokens_per_micro_batch|model\.optimizer\.lr"):
        getattr(Tuner(trainer()), tune)(sft(), datamodule=registers())


@pytest.mark.parametrize("name", strategy_names())
def test_a_strategy_by_name_works_or_is_refused(name):
    cls = strategy_names()[name]
    if issubclass(cls, tuple(STRATEGIES)):
        with pytest.raises(InputError, match=f"trainer.strategy is {cls.__name__}, .*Use"):
            check_supported(cls.__new__(cls))
        return
    strategy = strategies.StrategyRegistry.get(name)
    check_supported(strategy)
    if re.search("spawn|fork|notebook", name):
        with pytest.raises(InputError, match=r"trainer\.strategy is .*(spawn|fork|notebook).*untrained.*ddp"):
            check_launcher(strategy)
    else:
        check_launcher(strategy)


def test_a_run_by_forks_is_refused(trainer):
    """The child process refuses, before any weights are read; its error has the message."""
    with pytest.raises(Exception, match=r"ddp_fork or ddp_notebook.*untrained.*Use ddp"):
        trainer(strategy="ddp_fork", devices=2).fit(sft(), registers())


def test_the_profiler_of_tpus_is_refused():
    profiler = type("Made", (profilers.XLAProfiler,), {"__init__": lambda self: None, "__del__": lambda self: None})()
    with pytest.raises(InputError, match=r"XLAProfiler.*SimpleProfiler"):
        check_parts(SimpleNamespace(strategy=None, profiler=profiler))


def test_a_compiled_module_is_refused(trainer):
    with pytest.raises(InputError, match=r"torch\.compile"):
        trainer().fit(torch.compile(sft()), registers())


def test_several_dataloaders_of_validation_are_refused(trainer):
    data, loader = registers(), DataLoader(["a text"])
    with pytest.raises(InputError, match="2 dataloaders for `validate`"):
        trainer().fit(sft(), loader, [loader, loader])
    one = data.val_dataloader
    data.val_dataloader = lambda: [one(), one()]
    with pytest.raises(InputError, match="2 dataloaders for `validate`"):
        trainer().validate(sft(), data)


def test_several_dataloaders_of_predict_give_a_list_each(trainer):
    data = predicts()
    one = data.predict_dataloader
    data.predict_dataloader = lambda: [one(), one()]
    first, second = trainer(limit_predict_batches=1).predict(sft(), data)
    assert first == second
