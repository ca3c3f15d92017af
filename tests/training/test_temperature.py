"""What is trained is the distribution that is sampled from."""

from __future__ import annotations

import itertools

import pytest
import torch
from short_runs import nrt_module, registers
from tiny import ANSWERS, QUESTIONS, make_prompts, sampled

from nrt_lightning import (
    InputError,
    NRTLoss,
    PackedGroups,
    Policy,
    PromptCopies,
    PromptTree,
    Sampling,
    SharedPrompt,
    TransformersEngine,
    TruncatedImportance,
)
from nrt_lightning.models.policy.vocabulary import unused_ids
from nrt_lightning.rollouts import GenerationRequest
from nrt_lightning.training.method import Method
from nrt_lightning.training.sampling import sample_window


def logits_of(policy, rollouts, row):
    """By a plain forward of the row alone, [C, V]."""
    prompt = rollouts.group_ids[row]
    ids = rollouts.prompt_ids[prompt][rollouts.prompt_mask[prompt]]
    text = rollouts.completion_ids[row][rollouts.segments.completion_mask[row]]
    with torch.no_grad():
        return policy.network(torch.cat([ids, text])[None]).logits[0, len(ids) - 1 : -1], text


@pytest.mark.parametrize("scoring", [PromptCopies(), SharedPrompt(), PackedGroups(), PromptTree()], ids=repr)
@pytest.mark.parametrize("temperature", [0.6, 1.3])
def test_trained_log_probs_are_under_the_temperature_and_answers_at_1(tiny_dir, scoring, temperature):
    policy = Policy(tiny_dir, scoring=scoring).load().eval()
    rollouts = sampled(policy)
    rollouts.temperature = temperature
    scores = policy.score(rollouts, baseline=True)
    for row in range(len(rollouts)):
        logits, text = logits_of(policy, rollouts, row)
        count, answer = len(text), rollouts.segments.answer_mask[row][: len(text)]
        scaled = torch.where(answer[:, None], logits, logits / temperature).log_softmax(-1)
        expected = scaled.gather(-1, text[:, None])[:, 0]
        torch.testing.assert_close(scores.logprobs[row, :count], expected, atol=3e-5, rtol=1e-4)
        entropy = -(scaled.exp() * scaled).sum(-1)
        torch.testing.assert_close(scores.entropy[row, :count], entropy, atol=3e-5, rtol=1e-4)
    rollouts.temperature = 1.0
    plain = policy.score(rollouts, baseline=True)
    torch.testing.assert_close(scores.baseline_logprobs, plain.baseline_logprobs)


def test_the_gradient_is_that_of_scaled_logits(policy):
    rollouts = sampled(policy)
    rollouts.temperature = 0.6
    policy.eval().score(rollouts).logprobs.sum().backward()
    found = policy.network.get_input_embeddings().weight.grad.clone()
    policy.zero_grad()
    total = 0
    for row in range(len(rollouts)):
        prompt = rollouts.group_ids[row]
        ids = rollouts.prompt_ids[prompt][rollouts.prompt_mask[prompt]]
        text = rollouts.completion_ids[row][rollouts.segments.completion_mask[row]]
        logits = policy.network(torch.cat([ids, text])[None]).logits[0, len(ids) - 1 : -1]
        answer = rollouts.segments.answer_mask[row][: len(text)]
        scaled = torch.where(answer[:, None], logits, logits / 0.6).log_softmax(-1)
        total = total + scaled.gather(-1, text[:, None]).sum()
    total.backward()
    torch.testing.assert_close(found, policy.network.get_input_embeddings().weight.grad, atol=1e-3, rtol=1e-3)


def exact(logits, temperature, top_p, top_k):
    """Log-probs of the sampling distribution by its definition, token by token."""
    probs = (logits.double() / temperature).softmax(-1)
    order = probs.argsort(descending=True)
    kept = order[: top_k or None]
    within = probs[kept] / probs[kept].sum()
    size = next(n for n in range(1, len(kept) + 1) if within[:n].sum() >= min(top_p, 1 - 1e-12) or n == len(kept))
    kept = kept[:size]
    found = torch.full_like(probs, -torch.inf)
    found[kept] = (probs[kept] / probs[kept].sum()).log()
    return found


@pytest.mark.parametrize(("temperature", "top_p", "top_k"), list(itertools.product((0.6, 1, 1.3), (1, 0.9), (0, 20))))
def test_sampler_log_probs_are_exact(policy, temperature, top_p, top_k):
    prompts = make_prompts(policy, QUESTIONS, ANSWERS)
    request = GenerationRequest(
        prompts.prompt_ids, prompts.prompt_mask, 6, [policy.markup.marker_ids[0]], 2, temperature=temperature,
        top_p=top_p, top_k=top_k, logprobs=True, seed=3,
    )  # fmt: skip
    out = TransformersEngine().generate(policy, request)
    policy.eval()
    for row in range(len(out)):
        ids = request.prompt_ids[row // 2][request.prompt_mask[row // 2]]
        text = out.token_ids[row][out.token_mask[row]]
        with torch.no_grad():
            logits = policy.network(torch.cat([ids, text])[None]).logits[0, len(ids) - 1 : -1]
        logits[:, unused_ids(policy)] = -torch.inf
        expected = [exact(step, temperature, top_p, top_k)[token] for step, token in zip(logits, text)]
        torch.testing.assert_close(out.logprobs[row][out.token_mask[row]], torch.stack(expected).float(), atol=1e-4,
                                   rtol=1e-4)  # fmt: skip


@pytest.mark.parametrize("train_response", [False, True])
def test_what_is_sampled_at_a_temperature_is_trained_at_it(policy, train_response):
    sampling = Sampling(group_size=4, max_trace_tokens=12, max_answer_tokens=6, temperature=0.6)
    loss = NRTLoss(sampler_correction=TruncatedImportance())
    method = Method(policy, sampling=sampling, loss=loss, train_response=train_response)
    [batch] = sample_window(method, make_prompts(policy, QUESTIONS, ANSWERS), seed=1).micro_batches
    with policy.evaluating():
        scores = method.score(batch)
        rollouts = batch.sampled
        own = policy.score(rollouts)
    segments = rollouts.segments
    drawn = segments.trace_mask | (segments.marker_mask & segments.marker_emitted.unsqueeze(1))
    assert not unused_ids(policy)
    torch.testing.assert_close(own.logprobs[drawn], rollouts.sampling_logprobs[drawn], atol=1e-4, rtol=1e-4)
    assert batch.trained.temperature == 0.6
    assert scores.logprobs.isfinite().all()


@pytest.mark.parametrize("sampling", [{"top_p": 0.9}, {"top_k": 20}])
def test_a_cut_distribution_needs_a_correction(quiet_trainer, sampling):
    cut = Sampling(group_size=2, max_trace_tokens=6, **sampling)
    name = next(iter(sampling))
    with pytest.raises(InputError, match=rf"sampling\.{name} is .*sampler_correction"):
        quiet_trainer(max_steps=1).fit(nrt_module(sampling=cut), registers())
    run = quiet_trainer(max_steps=1)
    run.fit(nrt_module(sampling=cut, loss=NRTLoss(sampler_correction=TruncatedImportance())), registers())
    assert run.global_step == 1
    with pytest.raises(InputError, match=rf"sampling\.{name} is .*top_k to 0\."):
        quiet_trainer(max_steps=1).fit(nrt_module(sampling=cut, train_response=True), registers())


def test_greedy_traces_are_for_evaluation(quiet_trainer):
    module = nrt_module(sampling=Sampling(group_size=2, max_trace_tokens=6, temperature=0.0))
    quiet_trainer(limit_val_batches=1).validate(module, registers(), verbose=False)
    with pytest.raises(InputError, match=r"sampling\.temperature is 0.*evaluation"):
        quiet_trainer(max_steps=1).fit(module, registers())


def test_traces_without_tokens_are_for_evaluation(quiet_trainer):
    module = nrt_module(sampling=Sampling(group_size=2, max_trace_tokens=0))
    with pytest.raises(InputError, match=r"sampling\.max_trace_tokens=0"):
        quiet_trainer(max_steps=1).fit(module, registers())
