"""Filters, refilling and batch-wide advantages in short runs."""

from dataclasses import dataclass

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from short_runs import Recorder, nrt_module, registers, weights

from nrt_lightning import (
    BatchNormalized,
    ConstantSchedule,
    EMADeviationFilter,
    GroupFilter,
    InputError,
    NRTLoss,
    RegisterPrograms,
    Sampling,
    ZeroVarianceFilter,
)
from nrt_lightning.functional import TokenMean


@dataclass
class RewardFilter(GroupFilter):
    """Drops groups whose best reward is below a bound."""

    least: float = 0.0

    def measure(self, groups):
        best = torch.full((int(groups.group_ids.max()) + 1,), -torch.inf)
        return best.scatter_reduce(0, groups.group_ids, groups.rewards.float(), "amax")

    def keep(self, values):
        return values >= self.least


def fit(trainer, module, data=None, **settings):
    recorder = Recorder()
    made = trainer(callbacks=[recorder], **settings)
    made.fit(module, data or registers(val=None))
    return module, recorder


def sampling(**settings):
    return Sampling(group_size=4, max_trace_tokens=12, **settings)


def test_a_filter_that_keeps_all_changes_nothing(trainer):
    """The window is scored first then; loss and weights are those of one-pass scoring, to rounding."""
    plain, _ = fit(trainer, nrt_module(), max_steps=2)
    kept, recorder = fit(trainer, nrt_module(filters=[RewardFilter(-1e9)]), max_steps=2)
    assert recorder.metrics[0]["train/filtered_groups"] == 0
    expected, got = weights(plain), weights(kept)
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, atol=1e-5, rtol=1e-3)


def gradients(module):
    return [p.grad.clone() for p in module.policy.parameters()]


def test_filtered_groups_have_no_loss_of_any_term(trainer):
    """The gradient is that of the kept groups alone, each with the weight it has in the whole batch."""
    _, recorder = fit(trainer, nrt_module(filters=[ZeroVarianceFilter()]), max_steps=1)
    batch, module = recorder.batches[0], nrt_module()
    module.configure_model()
    module.log_scalars = lambda *args: None
    batch.rollouts.credit.loss_rows = batch.rollouts.group_ids != 1
    module.learn(batch).loss.backward()
    got = gradients(module)
    module.zero_grad()
    alone = batch.select(torch.tensor([0, 2]))
    alone.rollouts.credit.loss_rows = None
    (module.learn(alone).loss * 2 / 3).backward()
    torch.testing.assert_close(got, gradients(module), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("reduction", [None, TokenMean()])
@pytest.mark.parametrize("limit", [None, 60])
def test_a_batch_without_any_group_left_has_a_zero_loss_and_trains_nothing(trainer, reduction, limit):
    loss = NRTLoss() if reduction is None else NRTLoss(reduction=reduction)
    module = nrt_module(filters=[RewardFilter(1e9)], loss=loss, max_tokens_per_micro_batch=limit)
    module.optimizer = lambda params: torch.optim.SGD(params, lr=1.0)
    module.configure_model()
    before = weights(module)
    _, recorder = fit(trainer, module, max_steps=2)
    assert [m["train/loss"] for m in recorder.metrics] == [0.0, 0.0]
    assert [m["train/grad_norm"] for m in recorder.metrics] == [0.0, 0.0]
    assert recorder.metrics[0]["train/filtered_groups"] == 1
    assert recorder.metrics[0]["train/groups_without_loss"] == 1
    assert all(torch.equal(before[name], value) for name, value in weights(module).items())


def test_what_is_filtered_is_counted_by_reason(trainer):
    module = nrt_module(filters=[RewardFilter(1e9), ZeroVarianceFilter()])
    _, recorder = fit(trainer, module, max_steps=1)
    assert recorder.metrics[0]["train/filtered_reward"] == 1
    assert recorder.metrics[0]["train/filtered_zero_variance"] == 0, "each group counts for one reason"


def median_reward(trainer):
    _, recorder = fit(trainer, nrt_module(), max_steps=4)
    best = [float(m["train/reward"]) for m in recorder.metrics]
    return sorted(best)[2]


@pytest.mark.parametrize("window", [1, 2])
def test_filtered_groups_are_replaced_by_further_rows(trainer, window):
    filter_ = RewardFilter(median_reward(trainer))
    data = registers(val=None, window=window)
    module = nrt_module(filters=[filter_], sampling=sampling(refill_rounds=4))
    _, recorder = fit(trainer, module, data, max_steps=4)
    _, plain = fit(trainer, nrt_module(), registers(val=None, window=window), max_steps=4)
    firsts = recorder.metrics[::window]
    assert sum(m["rollout/refilled_groups"] for m in firsts) > 0
    assert all(m["rollout/refill_rounds"] <= 4 for m in firsts)
    replaced = 0
    for batch, before in zip(recorder.batches, plain.batches):
        rollouts = batch.rollouts
        assert len(rollouts) == 12
        rows = rollouts.credit.loss_rows
        assert rows.view(3, 4).all(1).logical_or(~rows.view(3, 4).any(1)).all()
        for place, (now, then) in enumerate(zip(batch.rows, before.rows)):
            length = int(rollouts.prompt_mask[place].sum())
            ids = module.policy.tokenizer(now.question)["input_ids"]
            assert rollouts.prompt_ids[place][-length:].tolist()[-len(ids) :] == ids, "ids are those of the row"
            replaced += now.id != then.id
            assert now.id == then.id or bool(rows[place * 4]), "only what is kept replaces"
    assert replaced > 0


def test_rounds_are_bounded(trainer):
    module = nrt_module(filters=[RewardFilter(1e9)], sampling=sampling(refill_rounds=2))
    _, recorder = fit(trainer, module, max_steps=1)
    assert recorder.metrics[0]["rollout/refill_rounds"] == 2
    assert recorder.metrics[0]["rollout/refilled_groups"] == 0
    assert recorder.metrics[0]["train/loss"] == 0


def run(trainer, tmp_path, name, max_steps, ckpt_path=None):
    recorder = Recorder()
    checkpoint = ModelCheckpoint(tmp_path / name, save_last=True, every_n_train_steps=2, save_top_k=0)
    module = nrt_module(
        schedule=ConstantSchedule(warmup=0),
        filters=[EMADeviationFilter(beta=1.0, momentum=0.5, average_from=1, filter_from=2)],
        sampling=sampling(refill_rounds=2),
    )
    made = trainer(callbacks=[recorder, checkpoint], max_steps=max_steps, enable_checkpointing=True, max_epochs=9)
    made.fit(module, registers(val=None, window=2, passes=2), ckpt_path=ckpt_path)
    return module, recorder, str(tmp_path / name / "last.ckpt")


def test_a_resumed_run_filters_and_refills_as_the_uninterrupted_one(trainer, tmp_path):
    whole, every, _ = run(trainer, tmp_path, "whole", 8)
    _, _, checkpoint = run(trainer, tmp_path, "half", 4)
    resumed, rest, _ = run(trainer, tmp_path, "rest", 8, checkpoint)
    assert rest.rows == every.rows[4:]
    assert any(m["rollout/refilled_groups"] for m in rest.metrics), "or this test shows nothing"
    assert resumed.method.filters[0].state_dict() == whole.method.filters[0].state_dict()
    expected, got = weights(whole), weights(resumed)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_batch_normalized_advantages_are_those_of_the_whole_window(trainer):
    module = nrt_module(advantage=BatchNormalized())
    data = registers(val=None, window=2)
    _, recorder = fit(trainer, module, data, max_steps=2)
    first, second = recorder.batches
    rewards = [module.method.compute_rewards(batch).value for batch in (first, second)]
    ids = torch.cat([first.rollouts.group_ids, second.rollouts.group_ids + 3])
    expected = BatchNormalized()(torch.cat(rewards), ids)
    torch.testing.assert_close(torch.cat([batch.rollouts.credit.advantages for batch in (first, second)]), expected)


def test_further_rows_do_not_depend_on_anything_but_their_place(trainer):
    one, other = registers(val=None), registers(val=None, train=RegisterPrograms("train", 24))
    for data in (one, other):
        data.trainer = trainer()
        data.trainer.strategy._lightning_module = nrt_module()
        data.setup("fit")
    ids = [row.id for row in one.replacement_rows(5, 0, 3, 1).rows]
    assert ids == [row.id for row in other.replacement_rows(5, 0, 3, 1).rows]
    assert ids != [row.id for row in one.replacement_rows(5, 0, 3, 2).rows]
    assert len({row.id for row in one.replacement_rows(24, 0, 3, 1).rows}) == 24, "no row twice while there are others"
    assert len(one.replacement_rows(30, 0, 3, 1)) == 30


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"filters": [ZeroVarianceFilter()], "sampling": Sampling(group_size=1)}, "ZeroVarianceFilter.*drop them all"),
        ({"sampling": sampling(refill_rounds=1)}, "refill_rounds is 1, but nothing filters"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    from nrt_lightning import GroupNormalized

    with pytest.raises(InputError, match=message):
        nrt_module(advantage=GroupNormalized(center=False, scale="none"), **settings)


def test_refilling_without_rows_to_refill_from_is_refused(trainer):
    from tiny import ANSWERS, QUESTIONS
    from torch.utils.data import DataLoader

    texts = [{"question": q, "answer": a} for q, a in zip(QUESTIONS, ANSWERS)]
    module = nrt_module(filters=[ZeroVarianceFilter()], sampling=sampling(refill_rounds=1))
    with pytest.raises(InputError, match=r"sampling\.refill_rounds is 1.*replacement_rows"):
        trainer().fit(module, DataLoader(texts, batch_size=3))
