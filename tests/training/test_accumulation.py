"""Gradients of several micro-batches are those of one batch."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from short_runs import nrt_module, registers, weights
from torch.utils.data import DataLoader

from nrt_lightning import (
    CISPO,
    ConstantSchedule,
    FrozenReference,
    InputError,
    NRTLoss,
    PlainTemplate,
    Policy,
    RegisterPrograms,
    SFTModule,
)
from nrt_lightning.data import TextBatches
from nrt_lightning.functional import SequenceMean, SequenceSum, SequenceSumConstant, TokenMean
from nrt_lightning.training.micro_batches import loss_segments

REDUCTIONS = [SequenceSumConstant(8), SequenceSum(), SequenceMean(), TokenMean()]
ROWS = 6


def sgd(params):
    return torch.optim.SGD(params, lr=0.1)


class Gradient(L.Callback):
    """The gradient of each optimizer step before clipping, and what was logged in each micro-batch."""

    def __init__(self):
        self.steps, self.logged, self.batches, self.losses, self.before = [], [], [], [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.before.append(weights(module))

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.steps.append({name: p.grad.clone() for name, p in module.policy.named_parameters()})

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.batches.append(batch)
        self.logged.append(float(trainer.callback_metrics["train/loss"]))
        self.losses.append(float(outputs["loss"]))


def fit(trainer, module, data, accumulate, steps=1, **settings):
    note = Gradient()
    trainer(
        callbacks=[note], max_steps=steps, limit_val_batches=0, accumulate_grad_batches=accumulate,
        gradient_clip_val=1.0, **settings,
    ).fit(module, data)  # fmt: skip
    return note


def close(ours, expected):
    for name, grad in expected.items():
        assert (ours[name] - grad).norm() <= 1e-4 * grad.norm() + 1e-8, name


def sft(**settings):
    policy = Policy("embedded:registers-base")
    return SFTModule(policy, optimizer=sgd, schedule=ConstantSchedule(0), **settings)


@pytest.mark.parametrize("reduction", REDUCTIONS, ids=repr)
def test_supervised_fine_tuning_in_micro_batches_has_the_gradient_of_one_batch(trainer, reduction):
    whole = fit(trainer, sft(reduction=reduction), registers(batch_size=ROWS), 1)
    for size in (1, 3):
        parts = fit(trainer, sft(reduction=reduction), registers(batch_size=size), ROWS // size)
        close(parts.steps[0], whole.steps[0])
        assert parts.logged == pytest.approx([ROWS // size * loss for loss in parts.losses]), "the micro-batch's own"


@pytest.mark.parametrize("reduction", REDUCTIONS, ids=repr)
def test_the_last_step_of_an_epoch_with_fewer_micro_batches_too(trainer, reduction):
    expected = fit(trainer, sft(reduction=reduction), registers(batch_size=2), 2, limit_train_batches=2, max_epochs=1)
    fewer = fit(trainer, sft(reduction=reduction), registers(batch_size=2), 5, limit_train_batches=2, max_epochs=1)
    close(fewer.steps[0], expected.steps[0])


def one_batch(module, batches):
    """The gradient of the same rollouts as one batch, by the definition: sums of all tokens over their number."""
    method, loss = module.method, module.method.loss
    method.policy.zero_grad()
    sums, counts = {}, {}
    for batch in batches:
        scores = method.score(batch)
        credit = method.assign_credit(batch, scores)
        out = method.compute_loss(batch, scores, credit)
        if not out.parts.keys() - {"loss"}:
            counts["loss"] = counts.get("loss", 0) + len(batch.trained)
            sums["loss"] = sums.get("loss", 0) + out.loss * len(batch.trained)
            continue
        for name, mask in loss._masks(loss_segments(method, batch)).items():
            if name in out.parts:
                count = loss.reduction.count(mask)
                counts[name] = counts.get(name, 0) + count
                sums[name] = sums.get(name, 0) + out.parts[name] * count
    sum(total / max(counts[name], 1) for name, total in sums.items()).backward()
    return {name: p.grad.clone() for name, p in module.policy.named_parameters()}


@pytest.mark.parametrize(
    ("reduction", "window", "limit"),
    [
        (SequenceSumConstant(8), 1, None),
        (SequenceSum(), 1, None),
        (SequenceMean(), 6, None),
        (TokenMean(), 1, None),  # the micro-batches to come have not been sampled
        (TokenMean(), 3, None),
        (TokenMean(), 1, 60),
        (TokenMean(), 3, 60),
    ],
    ids=str,
)
def test_native_reasoning_in_micro_batches_has_the_gradient_of_one_batch(trainer, reduction, window, limit):
    settings = {
        "loss": NRTLoss(reduction=reduction, kl_coef=0.1), "reference": FrozenReference(), "optimizer": sgd,
        "max_tokens_per_micro_batch": limit, "schedule": ConstantSchedule(0),
    }  # fmt: skip
    note = fit(trainer, nrt_module(**settings), registers(batch_size=2, window=window), 3)
    fresh = nrt_module(**settings)
    fresh.policy.load()
    fresh.method.reference.load(fresh.policy)
    for batch in note.batches:
        batch.trained.credit = batch.trained.old_scores = None
    close(note.steps[0], one_batch(fresh, note.batches))


def test_clipped_tokens_leave_the_divisor_of_the_whole_step(trainer):
    """Which tokens are clipped is known only in the forward pass, so this divisor is not known before."""
    loss = NRTLoss(CISPO(drop_below=0.99, drop_above=1.01), reduction=TokenMean())
    for limit in (None, 60):
        module = nrt_module(loss=loss, optimizer=sgd, max_tokens_per_micro_batch=limit, schedule=ConstantSchedule(0))
        note = fit(trainer, module, registers(batch_size=2, window=4), 2, steps=2)
        with torch.no_grad():
            for name, parameter in module.policy.named_parameters():
                parameter.copy_(note.before[2][name])
        module.policy.zero_grad()
        outs = []
        for batch in note.batches[2:]:
            scores = module.method.score(batch)
            outs.append(module.method.compute_loss(batch, scores, module.method.assign_credit(batch, scores)))
        assert any(out.metrics["clip_share"] > 0 for out in outs)
        totals = {name: max(sum(out.sizes[name] for out in outs), 1) for name in outs[0].parts}
        sum(out.parts[name] * out.sizes[name] / totals[name] for out in outs for name in totals).backward()
        close(note.steps[1], {name: p.grad for name, p in module.policy.named_parameters()})


def test_an_optimizer_that_asks_for_gradients_again_is_refused(trainer):
    module = SFTModule(
        Policy("embedded:registers-base"), schedule=ConstantSchedule(0),
        optimizer=lambda params: torch.optim.LBFGS(params, lr=0.1, max_iter=4),
    )  # fmt: skip
    with pytest.raises(InputError, match=r"accumulate_grad_batches is 2.*LBFGS"):
        trainer(max_steps=1, limit_val_batches=0, accumulate_grad_batches=2).fit(module, registers())


def test_equal_micro_batches_change_nothing(trainer):
    """The default divisor is the number of rows: no gradient is touched."""
    module = nrt_module(optimizer=sgd)
    assert module.method.loss.reduction == SequenceSumConstant()
    fit(trainer, module, registers(window=2), 2)
    assert module._open.divisors == {"loss": 2 * 12.0}
    assert not module._open.apart


class LastGradient(Gradient):
    """For batches of which some are skipped."""

    def on_train_batch_end(self, *_):
        pass


def columns(rows):
    return {"question": [row.question for row in rows], "answer": [row.answer for row in rows]}


TEXTS = RegisterPrograms("train", 4).rows()
BATCHES = {"0": TEXTS[:1], "1": TEXTS[1:3], "2": TEXTS[3:]}
TOO_LONG = {"question": ["a" * 100], "answer": ["d1"]}
LIMITS = TextBatches(PlainTemplate(), max_prompt_tokens=64)


class OwnStep(SFTModule):
    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        optimizer.step(closure=optimizer_closure)


@pytest.mark.parametrize("kind", [SFTModule, OwnStep])
@pytest.mark.parametrize("reduction", [SequenceSumConstant(8), TokenMean()], ids=repr)
@pytest.mark.parametrize(("order", "stepped"), [("0-12", "012"), ("-012", "12"), ("0--1", "01"), ("01-2", "2")])
def test_a_skipped_batch_loses_no_gradient(trainer, order, stepped, reduction, kind):
    """A dash is a batch of which no row fits. The last step is that of one batch."""

    def last(batches, accumulate):
        module = sft(reduction=reduction, text_batches=LIMITS)
        module.__class__ = kind
        module.optimizer = lambda params: torch.optim.SGD(params, lr=0.0)
        note = LastGradient()
        settings = {"max_steps": -1, "max_epochs": 1, "limit_val_batches": 0, "accumulate_grad_batches": accumulate}
        trainer(callbacks=[note], **settings).fit(module, DataLoader(batches, batch_size=None))
        return note.steps[-1]

    found = last([TOO_LONG if of == "-" else columns(BATCHES[of]) for of in order], 2)
    close(found, last([columns([row for of in stepped for row in BATCHES[of]])], 1))


def test_micro_batches_before_a_skipped_end_of_training_are_named(trainer, caplog):
    module = sft(text_batches=LIMITS)
    run = trainer(max_steps=-1, max_epochs=1, limit_val_batches=0, accumulate_grad_batches=2)
    run.fit(module, DataLoader([columns(BATCHES["0"]), TOO_LONG], batch_size=None))
    assert run.global_step == 0
    assert "training ended before the optimizer step that the last micro-batches" in caplog.text
