"""A run that is stopped and resumed is the uninterrupted run, bit for bit."""

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from short_runs import Recorder, nrt_module, registers, weights

from nrt_lightning import ConstantSchedule, InputError, NRTLoss, NRTModule, Policy, Sampling, SFTModule


def run(trainer, tmp_path, name, data, max_steps, ckpt_path=None, **settings):
    recorder = Recorder()
    checkpoint = ModelCheckpoint(tmp_path / name, save_last=True, every_n_train_steps=1, save_top_k=0)
    trainer = trainer(
        callbacks=[recorder, checkpoint], max_steps=max_steps, enable_checkpointing=True, max_epochs=10, **settings
    )
    module = nrt_module(schedule=ConstantSchedule(warmup=0))  # one that does not depend on where the run stops
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return module, recorder, str(tmp_path / name / "last.ckpt")


@pytest.mark.parametrize(
    ("stop", "window", "accumulate"),
    [
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((2, 1, 1), (3, 1, 2), (4, 2, 1), (8, 1, 1))),
        (2, 2, 2),
        (9, 1, 1),
    ],  # 8 micro-batches an epoch: 8 is its end
)
def test_resumed_equals_uninterrupted(trainer, tmp_path, stop, window, accumulate):
    data = {"window": window, "val": None}
    total = stop + 3
    whole, all_rows, _ = run(trainer, tmp_path, "whole", registers(**data), total, accumulate_grad_batches=accumulate)
    _, _, checkpoint = run(trainer, tmp_path, "half", registers(**data), stop, accumulate_grad_batches=accumulate)
    torch.manual_seed(1234)  # whatever was drawn in between must not matter
    resumed, rest, _ = run(
        trainer, tmp_path, "rest", registers(**data), total, checkpoint, accumulate_grad_batches=accumulate
    )
    assert rest.rows == all_rows.rows[stop * accumulate :]
    for before, after in zip(all_rows.batches[stop * accumulate :], rest.batches):
        assert torch.equal(before.rollouts.completion_ids, after.rollouts.completion_ids)
    expected, got = weights(whole), weights(resumed)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_two_seeds_give_two_runs(trainer, tmp_path):
    recorders = []
    for seed in (7, 8):
        recorder = Recorder()
        made = trainer(callbacks=[recorder], max_steps=1)
        L.seed_everything(seed)
        made.fit(nrt_module(), registers())
        recorders.append(recorder)
    first, second = (r.batches[0].rollouts.completion_ids for r in recorders)
    assert first.shape != second.shape or not torch.equal(first, second)


@pytest.fixture
def checkpoint(trainer, tmp_path):
    return run(trainer, tmp_path, "c", registers(), 1)[2]


def test_checkpoint_of_another_model_is_refused(trainer, checkpoint, llama_dir):
    with pytest.raises(InputError, match=r"another model than .*hidden_size 64 \(here 32\).*policy\.model"):
        trainer().fit(nrt_module(policy=Policy(llama_dir)), registers(), ckpt_path=checkpoint)


def test_changed_method_is_said(trainer, checkpoint, caplog):
    trainer(max_steps=2).fit(nrt_module(loss=NRTLoss(marker_coef=0.7)), registers(), ckpt_path=checkpoint)
    assert "trained with loss=NRTLoss" in caplog.text
    assert "aggregator" not in caplog.text


def test_load_from_checkpoint(checkpoint):
    module = NRTModule.load_from_checkpoint(checkpoint, policy=Policy("embedded:registers-base"))
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(state[name], value) for name, value in module.state_dict().items())


def test_sft_goes_on_as_nrt(trainer, tmp_path):
    """The paper's order: fine-tune, then reason. The weights of one module load into the other."""
    module = SFTModule(Policy("embedded:registers-base"))
    made = trainer(max_steps=1, enable_checkpointing=True)
    made.fit(module, registers())
    made.save_checkpoint(tmp_path / "sft.ckpt")
    reasoning = NRTModule.load_from_checkpoint(
        tmp_path / "sft.ckpt", policy=Policy("embedded:registers-base"), sampling=Sampling(group_size=4)
    )
    assert all(torch.equal(a, b) for a, b in zip(module.policy.parameters(), reasoning.policy.parameters()))
