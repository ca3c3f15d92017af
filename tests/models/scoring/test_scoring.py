import inspect

import pytest
import torch
from tiny import sampled, save_tiny

from nrt_lightning import Policy, PromptCopies
from nrt_lightning.functional.linear_logprobs import linear_logprobs
from nrt_lightning.models.scoring import base as scoring
from nrt_lightning.models.scoring.base import accepted, names_of


def dense(policy, rollouts, row):
    """Log-probs and entropy of one completion, computed alone, without padding, from full logits."""
    prompt = rollouts.group_ids[row]
    ids = rollouts.prompt_ids[prompt][rollouts.prompt_mask[prompt]]
    completion = rollouts.completion_ids[row][rollouts.segments.completion_mask[row]]
    logits = policy.network(torch.cat([ids, completion])[None]).logits[0, len(ids) - 1 : -1].float()
    logprobs = logits.log_softmax(-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    return logprobs.gather(-1, completion[:, None])[:, 0], entropy


def test_scores_equal_the_unpadded_dense_computation(tiny_dir):
    policy = Policy(tiny_dir).load()
    rollouts = sampled(policy)
    scores = policy.score(rollouts, baseline=True)
    empty = rollouts.empty_traces()
    with torch.no_grad():
        for row in range(len(rollouts)):
            mask = rollouts.segments.completion_mask[row]
            logprobs, entropy = dense(policy, rollouts, row)
            torch.testing.assert_close(scores.logprobs[row][mask], logprobs, atol=2e-5, rtol=1e-5)
            torch.testing.assert_close(scores.entropy[row][mask], entropy, atol=2e-5, rtol=1e-5)
            assert (scores.logprobs[row][~mask] == 0).all()
        for row in range(len(empty)):
            mask = rollouts.answer_mask[row]
            expected = dense(policy, empty, row)[0][1:]  # without the marker
            torch.testing.assert_close(scores.baseline_logprobs[row][mask], expected, atol=2e-5, rtol=1e-5)


def test_gradients_equal_the_dense_computation(llama_dir):
    policy = Policy(llama_dir).load()
    rollouts = sampled(policy)
    policy.score(rollouts, baseline=True).logprobs.sum().backward()
    ours = {n: p.grad.clone() for n, p in policy.named_parameters()}
    policy.zero_grad()
    sum(dense(policy, rollouts, row)[0].sum() for row in range(len(rollouts))).backward()
    for name, p in policy.named_parameters():
        torch.testing.assert_close(ours[name], p.grad, rtol=1e-4, atol=1e-4 * p.grad.abs().max().item(), msg=name)


def test_only_log_probs_carry_a_gradient(policy):
    scores = policy.score(sampled(policy), baseline=True)
    assert scores.logprobs.requires_grad
    assert not scores.entropy.requires_grad
    assert not scores.baseline_logprobs.requires_grad


def test_the_head_sees_only_completion_positions(policy, monkeypatch):
    rollouts, seen = sampled(policy), []
    policy.score(rollouts)  # the first time a model is also tried out
    monkeypatch.setattr(
        "nrt_lightning.models.scoring.base.linear_logprobs",
        lambda hidden, *args, **kwargs: seen.append(len(hidden)) or linear_logprobs(hidden, *args, **kwargs),
    )
    PromptCopies()(policy.network, rollouts)
    assert seen == [int(rollouts.segments.completion_mask.sum())]


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_log_probs_of_half_precision_models_are_float32(policy, dtype):
    rollouts = sampled(policy)
    exact = policy.score(rollouts).logprobs
    half = policy.to(dtype).score(rollouts).logprobs
    assert half.dtype == torch.float32
    assert (half - exact).abs().mean() < 0.05


def test_activation_checkpointing_gives_the_same_gradients(llama_dir):
    grads = []
    for checkpointing in (False, True):
        policy = Policy(llama_dir, activation_checkpointing=checkpointing).load()
        policy.score(sampled(policy)).logprobs.sum().backward()
        grads.append({n: p.grad for n, p in policy.named_parameters()})
    assert policy.network.model.layers[0].gradient_checkpointing
    for name, grad in grads[0].items():
        assert (grads[1][name] - grad).norm() <= 1e-5 * grad.norm(), name


@pytest.mark.parametrize("family", ["llama", "cohere"])
def test_many_logits_are_computed_again_in_the_backward_pass(tmp_path, family, monkeypatch):
    """The same log-probs, entropies and gradients; a model that scales its logits after the head is noticed."""
    policy = Policy(save_tiny(tmp_path, family)).load()
    rollouts, results = sampled(policy), []
    for dense in (2**24, 0):
        monkeypatch.setattr(scoring, "DENSE", dense)
        policy.zero_grad()
        scores = policy.score(rollouts, baseline=True)
        scores.logprobs.sum().backward()
        results.append((scores, {n: p.grad.clone() for n, p in policy.named_parameters()}))
    (expected, expected_grads), (scores, grads) = results
    torch.testing.assert_close(scores.logprobs, expected.logprobs, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(scores.entropy, expected.entropy, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(scores.baseline_logprobs, expected.baseline_logprobs, atol=2e-5, rtol=1e-5)
    assert scoring.FINAL[policy.network] == (family == "llama")
    for name, grad in expected_grads.items():
        assert (grads[name] - grad).norm() <= 1e-5 * grad.norm() + 1e-9, name
    assert policy.network.get_output_embeddings().forward.__func__ is torch.nn.Linear.forward


def test_arguments_are_inspected_once_per_class(policy, llama_dir, monkeypatch):
    names_of.cache_clear()
    seen = []
    original = inspect.signature
    monkeypatch.setattr(inspect, "signature", lambda function: seen.append(function) or original(function))
    for network in (policy.network, policy.network, Policy(llama_dir).load().network):
        for _ in range(3):
            assert accepted(network, {"input_ids": 1}) == {"input_ids": 1}
    assert len([function for function in seen if function.__name__ == "forward"]) <= 2
