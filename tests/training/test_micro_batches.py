"""Micro-batches under a token budget: the gradient and the log of the whole batch, a part at a time."""

import lightning as L
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from short_runs import nrt_module, registers, weights
from tiny import ANSWERS, QUESTIONS, make_prompts, sampled

from nrt_lightning import CISPO, ClippedRatio, FrozenReference, InputError, NRTLoss, Policy
from nrt_lightning.functional import SequenceMean, SequenceSum, SequenceSumConstant, TokenMean
from nrt_lightning.structures import Credit, Scores, TraceReward
from nrt_lightning.training.micro_batches import pack, part_of, tokens_of_groups

TOKENS = st.lists(st.integers(1, 50), min_size=1, max_size=20)
REDUCTIONS = [SequenceSumConstant(), SequenceSumConstant(8, average=False), SequenceSum(), SequenceMean(), TokenMean()]
NOISY = {
    "train/tokens_per_second",
    "rollout/tokens_per_second",
    "rollout/seconds",
    "rollout/peak_memory_mib",
    "train/micro_batches",
    "train/groups_over_limit",
}


@given(TOKENS, st.integers(1, 200), st.integers(1, 8))
def test_every_group_is_in_one_part_that_keeps_to_the_limit(tokens, limit, at_least):
    parts = pack(tokens, limit, at_least)
    assert sorted(g for groups in parts for g in groups) == list(range(len(tokens)))
    assert all(len(groups) == 1 or sum(tokens[g] for g in groups) <= limit for groups in parts)
    assert len(parts) >= min(at_least, len(tokens))
    order = [tokens[g] for groups in parts for g in groups]
    assert order == sorted(order), "like lengths together"


def test_a_part_holds_what_the_batch_holds():
    policy = Policy("embedded:registers-base").load()
    batch = make_prompts(policy, QUESTIONS, ANSWERS)
    batch.rollouts = rollouts = sampled(policy, group_size=3)
    shape, answers = rollouts.completion_ids.shape, rollouts.answer_ids.shape
    rollouts.old_scores = Scores(torch.randn(shape), torch.randn(shape), torch.randn(answers))
    reward = TraceReward(torch.randn(9), torch.randn(9, answers[1]))
    rollouts.credit = Credit(reward, torch.randn(9), torch.randn(shape))
    cut = part_of(batch, [2, 0])
    mine = cut.batch.rollouts
    assert cut.prompts.tolist() == [0, 2]
    assert cut.rows.tolist() == [0, 1, 2, 6, 7, 8]
    assert mine.group_ids.tolist() == [0, 0, 0, 1, 1, 1]
    assert tokens_of_groups(mine) == [tokens_of_groups(rollouts)[g] for g in (0, 2)]
    mask, of_all = mine.segments.completion_mask, rollouts.segments.completion_mask[cut.rows]
    for of_part, of_batch in (
        (mine.completion_ids, rollouts.completion_ids),
        (mine.old_scores.logprobs, rollouts.old_scores.logprobs),
        (mine.credit.token_weights, rollouts.credit.token_weights),
    ):
        assert torch.equal(of_part[mask], of_batch[cut.rows][of_all])
    assert torch.equal(mine.credit.advantages, rollouts.credit.advantages[cut.rows])
    assert torch.equal(mine.credit.reward.value, rollouts.credit.reward.value[cut.rows])
    known, all_known = mine.old_scores.baseline_logprobs, rollouts.old_scores.baseline_logprobs
    assert torch.equal(known[mine.answer_mask], all_known[cut.prompts][rollouts.answer_mask[cut.prompts]])
    ids, all_ids = mine.prompt_ids[mine.prompt_mask], rollouts.prompt_ids[cut.prompts]
    assert torch.equal(ids, all_ids[rollouts.prompt_mask[cut.prompts]])


class Notes(L.Callback):
    """Gradients before each step, and what was logged."""

    def __init__(self):
        self.gradients, self.metrics = [], []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.gradients.append({name: p.grad.clone() for name, p in module.policy.named_parameters()})

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.metrics.append({k: float(v) for k, v in trainer.callback_metrics.items() if k not in NOISY})


def train(trainer, limit, settings, **run):
    notes = Notes()
    data = registers(window=run.pop("window", 1))
    module = nrt_module(max_tokens_per_micro_batch=limit, **settings)
    trainer(callbacks=[notes], max_steps=run.pop("steps", 2), **run).fit(module, data)
    return module, notes


def check_same(trainer, settings, **run):
    _, whole = train(trainer, None, settings, **run)
    module, parts = train(trainer, 60, settings, **run)
    assert module.trainer.callback_metrics["train/micro_batches"] > 1
    for ours, expected in zip(parts.metrics, whole.metrics, strict=True):
        assert ours == pytest.approx(expected, rel=2e-4, abs=2e-5)
    for ours, expected in zip(parts.gradients, whole.gradients, strict=True):
        for name, grad in expected.items():
            assert (ours[name] - grad).norm() <= 1e-4 * grad.norm() + 1e-8, name
    return parts


def slow_sgd(params):
    return torch.optim.SGD(params, lr=0.1)


@pytest.mark.parametrize("reduction", [pytest.param(REDUCTIONS[0], marks=pytest.mark.slow), *REDUCTIONS[1:]], ids=repr)
def test_same_gradient_and_log_on_policy(trainer, reduction):
    settings = {"loss": NRTLoss(reduction=reduction, kl_coef=0.1), "reference": FrozenReference()}
    check_same(trainer, settings | {"optimizer": slow_sgd}, accumulate_grad_batches=2, window=2)


@pytest.mark.parametrize("surrogate", [CISPO(drop_below=0.99, drop_above=1.01), ClippedRatio(0.01, 0.01)], ids=repr)
@pytest.mark.parametrize("reduction", [SequenceSumConstant(8), TokenMean()], ids=repr)
def test_same_gradient_and_log_off_policy(trainer, surrogate, reduction):
    """Clipped tokens leave the denominator of a mean: here the log-probs of all parts are needed first."""
    settings = {"loss": NRTLoss(surrogate=surrogate, reduction=reduction), "optimizer": slow_sgd}
    notes = check_same(trainer, settings, window=4, steps=4)
    assert notes.metrics[-1]["train/clip_share"] > 0


def test_no_forward_pass_takes_more_than_the_limit(trainer):
    seen = []

    def note(embedding, args, out):
        seen.append((torch.is_grad_enabled(), args[0].numel()))

    class Watch(L.Callback):
        def on_train_start(self, trainer, module):
            embedding = module.policy.network.get_input_embeddings()
            embedding.register_forward_hook(
                lambda m, args, out: seen.append((torch.is_grad_enabled(), args[0].numel()))
            )

    module = nrt_module(max_tokens_per_micro_batch=120)
    trainer(callbacks=[Watch()], max_steps=2).fit(module, registers())
    learned = [count for grad, count in seen if grad]
    assert len(learned) > 2
    assert max(learned) <= 120
    assert module.trainer.callback_metrics["train/groups_over_limit"] == 0


def test_a_group_above_the_limit_is_counted_and_learned_from(trainer):
    module = nrt_module(max_tokens_per_micro_batch=10)
    before = None
    run = trainer(max_steps=1)
    module.policy.load()
    before = weights(module)
    run.fit(module, registers())
    assert run.callback_metrics["train/groups_over_limit"] == 3
    assert run.callback_metrics["train/micro_batches"] == 3
    assert any(not torch.equal(p, before[name]) for name, p in weights(module).items())


def test_no_gradients_are_left_while_traces_are_sampled(trainer):
    class Look(L.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            assert all(p.grad is None for p in module.policy.parameters())

    trainer(callbacks=[Look()], max_steps=2).fit(nrt_module(), registers())


def test_a_limit_below_one_is_refused():
    with pytest.raises(InputError, match="max_tokens_per_micro_batch"):
        nrt_module(max_tokens_per_micro_batch=0)
