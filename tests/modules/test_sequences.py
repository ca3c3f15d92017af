"""One module in several calls of a trainer, in any order."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from short_runs import nrt_module, registers, weights

from nrt_lightning import Policy, SFTModule


@pytest.mark.parametrize("module", ["nrt", "sft"])
@pytest.mark.parametrize("one_trainer", [False, True])
def test_validation_and_training_may_follow_each_other(trainer, tmp_path, module, one_trainer):
    made = nrt_module() if module == "nrt" else SFTModule(Policy("embedded:registers-base"))
    data = registers()

    def new():
        logger = TensorBoardLogger(tmp_path, name="", version="")
        return trainer(max_steps=1, logger=logger, limit_val_batches=1, val_check_interval=1)

    run = new()
    for name in ("validate", "fit", "validate", "fit", "test"):
        if not one_trainer:
            run = new()
        elif name == "fit":
            run.fit_loop.epoch_loop.max_steps = run.global_step + 1
        getattr(run, name)(made, data, **({} if name == "fit" else {"verbose": False}))
    assert run.global_step == (2 if one_trainer else 0)


def test_a_validation_before_training_changes_nothing(trainer):
    found = []
    for first in (False, True):
        module, data = nrt_module(), registers()
        if first:
            trainer(limit_val_batches=1).validate(module, data, verbose=False)
        trainer(max_steps=2, limit_val_batches=0).fit(module, data)
        found.append(weights(module))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
