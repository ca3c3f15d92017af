"""Every optimizer step has the gradients of its own micro-batches."""

from __future__ import annotations

import pytest
import torch
from short_runs import nrt_module, registers, weights

from nrt_lightning import ConstantSchedule, EMAReference, NRTLoss, NRTModule, Policy, SFTModule


class OwnStep(NRTModule):
    """Of the user: as in Lightning's documentation."""

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        optimizer.step(closure=optimizer_closure)


class OwnStepSFT(SFTModule):
    optimizer_step = OwnStep.optimizer_step


class Repeats(torch.optim.SGD):
    """Calls its closure three times, as LBFGS does."""

    def step(self, closure):
        for _ in range(3):
            with torch.enable_grad():
                loss = closure()
        super().step()
        return loss


def sgd(params):
    return torch.optim.SGD(params, lr=0.1)


def trained(trainer, own=False, optimizer=sgd, sft=False, accumulate=1, **settings):
    common = {"optimizer": optimizer, "schedule": ConstantSchedule(0)}
    if sft:
        module = (OwnStepSFT if own else SFTModule)(Policy("embedded:registers-base"), **common)
    else:
        module = nrt_module(**common | settings)
        module.__class__ = OwnStep if own else NRTModule
    run = trainer(max_steps=3, limit_val_batches=0, accumulate_grad_batches=accumulate)
    run.fit(module, registers(window=1))
    return weights(module)


PARTS = {"max_tokens_per_micro_batch": 100}
cases = pytest.mark.parametrize(
    "settings",
    [{}, PARTS, {"accumulate": 2}, PARTS | {"accumulate": 2}, {"sft": True}, {"sft": True, "accumulate": 2}],
    ids=str,
)  # fmt: skip


@cases
def test_a_step_of_the_users_own_accumulates_nothing(trainer, settings):
    expected, found = trained(trainer, **settings), trained(trainer, own=True, **settings)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("settings", [{}, PARTS, {"sft": True}], ids=str)
def test_a_closure_that_is_called_again_accumulates_nothing(trainer, settings):
    expected, found = trained(trainer, **settings), trained(trainer, optimizer=lambda p: Repeats(p, lr=0.1), **settings)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_lbfgs_lowers_the_loss_of_its_batch(trainer):
    module = SFTModule(
        Policy("embedded:registers-base"), schedule=ConstantSchedule(0),
        optimizer=lambda params: torch.optim.LBFGS(params, lr=0.1, max_iter=4),
    )  # fmt: skip
    losses = []
    step = module.training_step
    module.training_step = lambda *args: losses.append(step(*args)) or losses[-1]
    trainer(max_steps=1, limit_val_batches=0).fit(module, registers())
    assert len(losses) == 4
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("own", [False, True])
def test_a_reference_follows_the_policy_whoever_steps(trainer, own):
    reference = EMAReference(update_rate=1.0, every_n_steps=1)
    module = nrt_module(reference=reference, loss=NRTLoss(kl_coef=0.1), optimizer=sgd, schedule=ConstantSchedule(0))
    module.__class__ = OwnStep if own else NRTModule
    for _ in range(2):  # a second run has steps of the same numbers
        trainer(max_steps=2, limit_val_batches=0).fit(module, registers(window=1))
        for name, weight in weights(module).items():
            torch.testing.assert_close(dict(reference.frozen[0].named_parameters())[name].detach(), weight)
