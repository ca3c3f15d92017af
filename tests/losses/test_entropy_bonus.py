"""The entropy bonus: its gradient, its coefficient over a run."""

from __future__ import annotations

import pytest
import torch
from tiny import sampled

from nrt_lightning import (
    AdaptiveEntropyBonus,
    EntropyBonus,
    InputError,
    NRTLoss,
    PackedGroups,
    Policy,
    PromptCopies,
    PromptTree,
    SharedPrompt,
)
from nrt_lightning.functional.linear_logprobs import linear_logprobs
from nrt_lightning.functional.logprobs import entropy
from nrt_lightning.losses import (
    ClippedSequenceRatio,
    MaskedImportance,
    MaskedSequenceImportance,
    TruncatedImportance,
    TruncatedSequenceImportance,
)
from nrt_lightning.models.scoring.entropies import entropy_gradient


@pytest.mark.parametrize("keep", [True, False])
def test_gradients_of_entropies_equal_those_of_dense_logits(keep):
    torch.manual_seed(0)
    hidden, weight = torch.randn(7, 5).double().requires_grad_(), torch.randn(11, 5).double().requires_grad_()
    ids, a, b = torch.randint(0, 11, (7,)), torch.randn(7).double(), torch.randn(7).double()
    logprobs, found = linear_logprobs(hidden, weight, ids, chunk=3, keep=keep, entropy_gradient=True)
    mine = torch.autograd.grad((a * logprobs + b * found).sum(), [hidden, weight])
    logits = hidden @ weight.T
    dense = a * logits.log_softmax(-1).gather(-1, ids[:, None])[:, 0] + b * entropy(logits)
    for one, other in zip(mine, torch.autograd.grad(dense.sum(), [hidden, weight]), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("scoring", [PromptCopies(), SharedPrompt(), PackedGroups(), PromptTree()], ids=repr)
def test_every_scoring_forward_gives_entropies_a_gradient_only_where_asked(scoring, llama_dir):
    policy = Policy(llama_dir, scoring=scoring).load()
    rollouts = sampled(policy)
    assert not policy.score(rollouts).entropy.requires_grad
    with entropy_gradient(enabled=True):
        mine = policy.score(rollouts)
    parameters = [p for p in policy.parameters() if p.requires_grad]
    found = torch.autograd.grad(mine.entropy.sum(), parameters)
    reference = Policy(llama_dir, scoring=PromptCopies()).load()
    with entropy_gradient(enabled=True):
        other = reference.score(rollouts)
    expected = torch.autograd.grad(other.entropy.sum(), [p for p in reference.parameters() if p.requires_grad])
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-3)


def test_the_adaptive_coefficient_follows_the_target_and_resumes():
    bonus = AdaptiveEntropyBonus(coef=0.01, target=0.5, change=0.004, largest=0.02)
    seen = []
    for values in ([0.1, 0.3], [0.2], [0.9], [0.1], [0.1], [0.1]):
        for value in values:
            bonus.observe(value)
        bonus.step()
        seen.append(round(bonus.weight, 6))
    assert seen == [0.014, 0.018, 0.0, 0.018, 0.02, 0.02]
    other = AdaptiveEntropyBonus(coef=0.01, target=0.5, change=0.004, largest=0.02)
    other.load_state_dict(bonus.state_dict())
    assert other.weight == bonus.weight
    assert "coef=0.01" in repr(bonus), "the setting, not the state"


def test_settings_out_of_range_are_refused():
    with pytest.raises(InputError, match=r"entropy_bonus.coef=-1"):
        EntropyBonus(-1)
    with pytest.raises(InputError, match=r"entropy_bonus.target=-1"):
        AdaptiveEntropyBonus(target=-1)
    assert NRTLoss(entropy_bonus=EntropyBonus()).entropy_bonus.weight == 0.001


CORRECTIONS = [TruncatedImportance(), MaskedImportance(), TruncatedSequenceImportance(), MaskedSequenceImportance()]


@pytest.mark.parametrize("correction", CORRECTIONS, ids=repr)
def test_equal_probabilities_have_weight_1(correction):
    logprobs = -torch.rand(3, 4)
    weights = correction(logprobs, logprobs, torch.tensor([[True, True, False, False]] * 3))
    assert torch.equal(weights, torch.ones(3, 4))


def test_corrections_equal_the_formulas():
    old, sampler = torch.tensor([[0.5, 0.5, 0.3]]).log(), torch.tensor([[0.25, 0.4, 0.9]]).log()
    mask = torch.tensor([[True, True, False]])

    def weights(correction):
        return pytest.approx(correction(old, sampler, mask)[0].tolist())

    assert weights(TruncatedImportance(1.5)) == [1.5, 1.25, 1.0]
    assert weights(MaskedImportance(0.5, 1.5)) == [0.0, 1.25, 1.0]
    assert weights(TruncatedSequenceImportance(3.0)) == [2.5, 2.5, 1.0]
    assert weights(TruncatedSequenceImportance(2.0)) == [2.0, 2.0, 1.0]
    assert weights(TruncatedSequenceImportance(2.0, mean=True)) == [2.5**0.5, 2.5**0.5, 1.0]
    assert weights(MaskedSequenceImportance(0.5, 2.0)) == [0.0, 0.0, 1.0]
    assert weights(MaskedSequenceImportance(0.5, 3.0)) == [2.5, 2.5, 1.0]


def test_the_sequence_ratio_has_the_gradient_of_its_definition():
    logprobs = torch.tensor([[-0.5, -1.0, -9.0]]).double().requires_grad_()
    old, mask = torch.tensor([[-0.5001, -1.0, -3.0]]).double(), torch.tensor([[True, True, False]])
    out = ClippedSequenceRatio()(logprobs.where(mask, 0), old.where(mask, 0), torch.tensor([[2.0]]).double(), mask)
    (found,) = torch.autograd.grad(out.loss.where(mask, 0).sum(), logprobs)
    ratio = torch.exp(torch.tensor(0.0001 / 2)).item()
    assert found.tolist()[0] == pytest.approx([-2.0 * ratio, -2.0 * ratio, 0.0])
    assert not out.clipped.any()
    far = ClippedSequenceRatio()(logprobs.where(mask, 0) + 0.1, old.where(mask, 0), torch.tensor([[2.0]]), mask)
    assert far.clipped[mask].all()
