"""Traces drawn with the answer in the prompt: prompts, engine, weights, guard, share, training."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from short_runs import Recorder, nrt_module, registers
from tiny import ANSWERS, QUESTIONS, make_prompts

from nrt_lightning import (
    AnswerConditioned,
    FallingShare,
    HybridImportance,
    HybridSequenceImportance,
    InputError,
    LeakGuard,
    NRTLoss,
    PlainTemplate,
    Row,
    Sampling,
    ShareByReward,
    TransformersEngine,
    TruncatedImportance,
    VLLMServerEngine,
)
from nrt_lightning.rollouts import GenerationRequest
from nrt_lightning.rollouts.decoding import forward
from nrt_lightning.rollouts.remote.jobs import jobs_of
from nrt_lightning.rollouts.sampled_tokens import by_count, generate
from nrt_lightning.training.method import Method
from nrt_lightning.training.sampling import sample_window, score_window
from nrt_lightning.training.state import restore, state_of

TEMPLATE = "{answer}<{question}"


def method_of(policy, **settings) -> Method:
    conditioned = AnswerConditioned(template=TEMPLATE, prompt=PlainTemplate(), **settings)
    return Method(policy, sampling=Sampling(group_size=4, max_trace_tokens=10), answer_conditioned=conditioned)


def window_of(policy, share=0.5, **settings):
    method = method_of(policy, **settings)
    prompts = make_prompts(policy, QUESTIONS, ANSWERS)
    return method, sample_window(method, prompts, seed=5, share=share).micro_batches[0]


def request_of(policy, counts=None, **settings):
    prompts = make_prompts(policy, QUESTIONS, ANSWERS)
    stops = [policy.markup.marker_ids[0], *policy.eos_ids]
    request = GenerationRequest(
        prompts.prompt_ids, prompts.prompt_mask, 9, stops, seed=1, logprobs=True, counts=counts, names=["x", "y", "z"]
    )
    return dataclasses.replace(request, **settings)


# The engine


def test_each_prompt_is_continued_as_often_as_asked_and_processed_once(policy, monkeypatch):
    rows = []

    def spy(model, ids, *args):
        rows.append(len(ids))
        return forward(model, ids, *args)

    TransformersEngine().generate(policy, request_of(policy, group_size=1))  # its first use tries the decoder
    monkeypatch.setattr("nrt_lightning.rollouts.prefill.forward", spy)
    found = TransformersEngine().generate(policy, request_of(policy, counts=[3, 1, 2]))
    assert rows == [3], "one row per prompt in the prefill"
    whole = TransformersEngine().generate(policy, request_of(policy, group_size=3))
    kept = whole.take(torch.tensor([0, 1, 2, 3, 6, 7]))
    assert [row[mask].tolist() for row, mask in zip(found.token_ids, found.token_mask, strict=True)] == [
        row[mask].tolist() for row, mask in zip(kept.token_ids, kept.token_mask, strict=True)
    ], "a trace does not depend on the number of others"
    in_batches = TransformersEngine(max_rows=3).generate(policy, request_of(policy, counts=[3, 1, 2]))
    assert torch.equal(in_batches.token_ids, found.token_ids)


def test_engines_that_know_no_counts_are_asked_once_per_count(policy):
    class Simple(TransformersEngine):
        serves_counts = False

        def generate(self, policy, request, progress=None):
            assert request.counts is None
            return super().generate(policy, request, progress)

    request = request_of(policy, counts=[2, 1, 2])
    expected, found = TransformersEngine().generate(policy, request), generate(Simple(), policy, request)
    assert torch.equal(expected.token_ids, found.token_ids)
    assert torch.equal(expected.stopped, found.stopped)
    assert torch.equal(by_count(Simple(), policy, request).token_ids, found.token_ids)


def test_remote_engines_get_the_counts_as_jobs(policy):
    assert [job.count for job in jobs_of(request_of(policy, counts=[3, 1, 2]))] == [3, 1, 2]


def test_a_vllm_server_gets_both_prompts_of_a_group(policy, fake, url):
    method = dataclasses.replace(method_of(policy), engine=VLLMServerEngine([url]), loss=NRTLoss())
    batch = sample_window(method, make_prompts(policy, QUESTIONS, ANSWERS), seed=5, share=0.25).micro_batches[0]
    of = batch.rollouts.conditioning
    asked = {tuple(body["prompt"]): body["n"] for body in fake.requests if body["n"] > 1 or len(body["prompt"]) > 12}
    for group in range(3):
        question = batch.rollouts.prompt_ids[group][batch.rollouts.prompt_mask[group]]
        shown = of.prompt_ids[group][of.prompt_mask[group]]
        assert (asked[tuple(question.tolist())], asked[tuple(shown.tolist())]) == (3, 1)
    score_window(method, [batch], steps=False)
    scores = method.score(batch)
    out = method.compute_loss(batch, scores, method.assign_credit(batch, scores))
    assert float(out.metrics["sampler_difference_max"]) < 1e-3, "compared after the prompt that the sampler saw"
    assert float(out.metrics["importance_mean"]) != 1.0


# The mixture


def test_a_share_of_each_group_sees_the_answer_and_all_are_trained_under_the_question(policy):
    method, batch = window_of(policy)
    _, plain = window_of(policy, share=0.0)
    rollouts, of = batch.rollouts, batch.rollouts.conditioning
    assert plain.rollouts.conditioning is None
    assert of.drawn.tolist() == [False, False, True, True] * 3
    assert of.share.tolist() == [0.5] * 12
    shown = [policy.tokenizer.decode(ids[mask][1:]) for ids, mask in zip(of.prompt_ids, of.prompt_mask, strict=True)]
    assert shown == [f"{answer}<{question}" for question, answer in zip(QUESTIONS, ANSWERS, strict=True)]
    asked = zip(rollouts.prompt_ids, rollouts.prompt_mask, strict=True)
    assert [policy.tokenizer.decode(ids[mask][1:]) for ids, mask in asked] == QUESTIONS
    for group in range(3):  # the traces under the question are those of a run without a share
        for row in range(2):
            n = 4 * group + row
            mine = rollouts.completion_ids[n][rollouts.segments.trace_mask[n]]
            other = plain.rollouts.completion_ids[n][plain.rollouts.segments.trace_mask[n]]
            assert mine.tolist() == other.tolist()
    assert method.needs_conditioned_logprobs
    score_window(method, [batch], steps=False)
    for n in range(12):
        prompt = of.prompt_ids[n // 4][of.prompt_mask[n // 4]]
        trace = rollouts.completion_ids[n][rollouts.segments.trace_mask[n]]
        with torch.no_grad():
            logits = policy.network(torch.cat([prompt, trace])[None]).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1).gather(-1, trace[:, None])[:, 0]
        torch.testing.assert_close(of.logprobs[n][rollouts.segments.trace_mask[n]], expected, atol=2e-5, rtol=1e-4)


def test_parts_of_the_batch_keep_their_conditioning(policy):
    method, batch = window_of(policy)
    score_window(method, [batch], steps=False)
    part, of = batch.slice(1, 3).rollouts, batch.rollouts.conditioning
    width = part.completion_ids.shape[1]
    assert part.conditioning.drawn.tolist() == of.drawn[4:].tolist()
    assert torch.equal(part.conditioning.prompt_ids, of.prompt_ids[1:])
    assert torch.equal(part.conditioning.logprobs, of.logprobs[4:, :width])


def test_shares_between_whole_traces_are_right_on_average():
    settings, names = AnswerConditioned(share=0.3), [str(n) for n in range(4000)]
    counts = settings.counts(0.3, 8, names, seed=0)
    assert set(counts) == {2, 3}
    assert sum(counts) / len(counts) == pytest.approx(2.4, abs=0.03)
    assert counts == settings.counts(0.3, 8, names, seed=0) != settings.counts(0.3, 8, names, seed=1)
    assert set(settings.counts(0.5, 8, names, 0)) == {4}
    assert set(settings.counts(0.0, 8, names, 0)) == {0}
    assert set(settings.counts(1.0, 8, names, 0)) == {8}


def test_shares_of_0_and_1_work(policy):
    _, batch = window_of(policy, share=1.0)
    assert batch.rollouts.conditioning.drawn.all()


def test_wrong_answers_are_those_of_other_rows():
    rows = [Row(str(n), [{"role": "user", "content": "q"}], answer) for n, answer in enumerate("aabcd")]
    control = AnswerConditioned(wrong_answers=True)
    for seed in range(20):
        shown = control.answers(rows, seed)
        assert all(given != row.answer for given, row in zip(shown, rows, strict=True))
        assert set(shown) <= set("abcd")
    assert AnswerConditioned().answers(rows, 0) == list("aabcd")
    with pytest.raises(InputError, match=r"wrong_answers.*all 2 rows.*'a'"):
        control.answers(rows[:2], 0)


# Weights


def test_hybrid_weights_are_p_over_the_mixture():
    p, q = torch.tensor([[0.5, 0.1, 0.9]]).log().double(), torch.tensor([[0.5, 0.9, 0.1]]).log().double()
    mask, share = torch.tensor([[True, True, True]]), 0.25
    expected = [a / (0.75 * a + 0.25 * b) for a, b in zip([0.5, 0.1, 0.9], [0.5, 0.9, 0.1])]
    found = HybridImportance()(p, q, torch.tensor([share]), mask)[0].tolist()
    assert found == pytest.approx(expected)
    assert max(found) <= 1 / (1 - share)
    product_p, product_q = 0.5 * 0.1 * 0.9, 0.5 * 0.9 * 0.1
    whole = HybridSequenceImportance()(p, q, torch.tensor([share]), mask)[0].tolist()
    assert whole == pytest.approx([product_p / (0.75 * product_p + 0.25 * product_q)] * 3)
    assert HybridImportance(cap=1.1)(p, q, torch.tensor([share]), mask).max() == pytest.approx(1.1)
    assert HybridImportance()(p, q, torch.tensor([0.0]), mask).tolist() == [[1.0] * 3], "nothing was conditioned"
    assert HybridImportance()(p, p, torch.tensor([share]), mask)[0].tolist() == pytest.approx([1.0] * 3)
    alone = HybridImportance(cap=9.0)(p, q, torch.tensor([1.0]), mask)[0].tolist()
    assert alone == pytest.approx([1.0, 0.1 / 0.9, 9.0])


def test_the_sampler_is_compared_after_the_prompt_it_saw(policy):
    method, batch = window_of(policy, correction=None)
    method.loss = NRTLoss(sampler_correction=TruncatedImportance(100.0), marker_coef=0.0, answer_coef=0.0)
    batch = sample_window(method, make_prompts(policy, QUESTIONS, ANSWERS), seed=5, share=0.5).micro_batches[0]
    score_window(method, [batch], steps=False)
    scores = method.score(batch)
    out = method.compute_loss(batch, scores, method.assign_credit(batch, scores))
    assert float(out.metrics["sampler_difference_max"]) < 1e-4, "own weights: the sampler is the policy"
    assert float(out.metrics["ratio_mean"]) == 1.0


def test_weights_enter_the_trace_term(policy):
    method, batch = window_of(policy)
    method.loss = NRTLoss(marker_coef=0.0, answer_coef=0.0)
    score_window(method, [batch], steps=False)
    scores = method.score(batch)
    credit = method.assign_credit(batch, scores)
    out, segments, of = method.compute_loss(batch, scores, credit), batch.rollouts.segments, batch.rollouts.conditioning
    total = 0.0
    for n in range(12):
        for c in range(scores.logprobs.shape[1]):
            emitted = bool(segments.marker_mask[n, c] and segments.marker_emitted[n])
            if segments.trace_mask[n, c] or emitted:
                p, q = math.exp(scores.logprobs[n, c].item()), math.exp(of.logprobs[n, c].item())
                weight = min(p / (0.5 * p + 0.5 * q), 2.0)
                total -= weight * credit.advantages[n].item() * scores.logprobs[n, c].item()
    assert float(out.loss) == pytest.approx(total / 512 / 12, rel=1e-4)


# The guard


def test_copies_are_refused_and_left_out_of_their_group(policy):
    method, batch = window_of(policy, leak_guard=LeakGuard(n=1, limit=0.5, refuse=True))
    of = batch.rollouts.conditioning
    assert not of.refused[~of.drawn].any(), "only traces that saw the answer are refused"
    of.refused = torch.zeros_like(of.refused)
    of.refused[2] = True
    scores = method.score(batch)
    credit = method.assign_credit(batch, scores)
    assert credit.loss_rows.tolist() == [n != 2 for n in range(12)]
    assert credit.reward.value[2].isnan()
    assert credit.advantages[2] == 0
    assert credit.advantages.isfinite().all()
    loss = method.compute_loss(batch, scores, credit).loss
    loss.backward()
    assert loss.isfinite()


def test_copied_share_counts_tokens_in_ngrams_of_the_answer():
    guard = LeakGuard(n=2)
    assert guard.copied([1, 2, 3, 9, 9], [1, 2, 3]) == 0.6
    assert guard.copied([1, 9, 2, 9, 3], [1, 2, 3]) == 0.0
    assert guard.copied([], [1, 2]) == 0.0
    assert LeakGuard(n=3).copied([5, 6], [6]) == 0.5, "shorter answers have shorter n-grams"
    assert LeakGuard.contains([9, 1, 2, 3], [1, 2, 3])
    assert not LeakGuard.contains([1, 2], [1, 2, 3])


# Shares over a run


def test_the_share_falls_with_the_reward_of_own_traces_and_resumes(policy):
    share = ShareByReward(start=0.4, low=0.0, high=0.8, momentum=0.5)
    assert share.now(0.0) == 0.4
    share.observe(0.2)
    share.observe(0.4)
    assert share.now(0.0) == pytest.approx(0.4 * (1 - 0.3 / 0.8))
    method, other = method_of(policy, share=share), method_of(policy, share=ShareByReward(0.4, 0.0, 0.8, 0.5))
    restore(other, state_of(method))
    assert other.answer_conditioned.schedule.now(0.0) == share.now(0.0)
    share.observe(9.0)
    assert share.now(0.0) == 0.0


# Training


def test_a_run_trains_falls_and_logs(quiet_trainer):
    share, recorder = FallingShare(start=1.0, end=0.0, until=0.5), Recorder()
    module = nrt_module(answer_conditioned=AnswerConditioned(share=share, template=TEMPLATE))
    quiet_trainer(max_steps=4, callbacks=[recorder]).fit(module, registers(val=None))
    shares = [m["train/conditioned_share"] for m in recorder.metrics[:2]]
    assert shares == [1.0, 0.5]
    assert recorder.batches[3].rollouts.conditioning is None
    assert recorder.ratios == [1.0] * 4
    names = ("conditioned_copies", "own_copies", "conditioned_reward", "importance_mean", "conditioned_contains_answer")
    assert all(f"train/{name}" in recorder.metrics[1] for name in names)
    last = {name.partition("/")[2]: float(value) for name, value in recorder.metrics[3].items()}
    assert last["conditioned_share"] == last["conditioned_reward"] == 0
    assert last["importance_mean"] == 1
    assert last["own_reward"] == pytest.approx(last["reward"])
    prompt = recorder.batches[0].rollouts.conditioning
    shown = module.policy.tokenizer.decode(prompt.prompt_ids[0][prompt.prompt_mask[0]][1:])
    row = recorder.batches[0].rows[0]
    assert shown == f"{row.answer}<{row.question}", "the template of the data, with the answer"


# Bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 1.5}, r"answer_conditioned.share=1.5"),
        ({"share": -0.1}, r"answer_conditioned.share=-0.1"),
        ({"template": "{question}"}, r"answer_conditioned.template='\{question\}'.*\{answer\}"),
        ({"template": "{answer}"}, r"answer_conditioned.template='\{answer\}'.*\{question\}"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        AnswerConditioned(**settings)


def test_rows_without_answers_are_refused():
    rows = [Row("7", [{"role": "user", "content": "q"}], None, origin="train.jsonl:3")]
    with pytest.raises(InputError, match=r"train.jsonl:3.*answer_conditioned"):
        AnswerConditioned().check_rows(rows)


def test_batches_without_texts_are_refused(policy):
    prompts = make_prompts(policy, QUESTIONS, ANSWERS)
    prompts.rows = []
    with pytest.raises(InputError, match=r"answer_conditioned.*0 of 3 rows.*Prompts.rows"):
        sample_window(method_of(policy), prompts, seed=5, share=0.5)


def test_responses_are_refused():
    with pytest.raises(InputError, match=r"train_response.*answer_conditioned"):
        nrt_module(answer_conditioned=AnswerConditioned(), train_response=True)


def test_a_question_that_holds_a_placeholder_is_text(policy):
    rows = [Row("0", [{"role": "user", "content": "a {answer}"}], "b {question}")]
    ids, mask = AnswerConditioned(template=TEMPLATE, prompt=PlainTemplate()).prompts(policy, rows, 0, policy.device)
    assert "a ?answer?" not in policy.tokenizer.decode(ids[0])
    assert int(mask.sum()) == 1 + len("b {question}<a {answer}")
