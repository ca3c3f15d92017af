"""Signals, own answers and whole responses in short runs."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from short_runs import Recorder, nrt_module, registers, weights

from nrt_lightning import (
    AnswerConfidence,
    ArithmeticMean,
    ClippedAdvantages,
    ClippedRatio,
    ExactMatch,
    Format,
    FunctionSignal,
    GainOverBaseline,
    GeometricMean,
    GroupNormalized,
    InputError,
    LogProb,
    MinimumSpreadFilter,
    MultiSampleBound,
    NRTLoss,
    PerplexityRank,
    RegisterPrograms,
    RolloutText,
    Sampling,
    SelfCertainty,
    WeightedSumOfSignals,
)
from nrt_lightning.rollouts import GenerationRequest, TransformersEngine

SAMPLING = {"group_size": 4, "max_trace_tokens": 12, "max_answer_tokens": 6}


def sum_of(**signals) -> WeightedSumOfSignals:
    return WeightedSumOfSignals(signals)


def fit(trainer, module, data=None, **settings):
    recorder = Recorder()
    run = trainer(callbacks=[recorder], **settings)
    run.fit(module, data or registers())
    return module, recorder


def test_confidence_as_the_only_signal_is_training_without_signals(trainer) -> None:
    plain, before = fit(trainer, nrt_module(aggregator=GeometricMean()))
    combined, after = fit(
        trainer, nrt_module(aggregator=GeometricMean(), signals=sum_of(c=AnswerConfidence(GeometricMean())))
    )
    assert all(torch.equal(a, b) for a, b in zip(weights(plain).values(), weights(combined).values()))
    assert [m["train/signal_c"] for m in after.metrics] == [m["train/reward"] for m in before.metrics]


def test_every_signal_is_logged_and_the_reward_is_their_sum(trainer) -> None:
    signals = sum_of(gain=GainOverBaseline(ArithmeticMean()), format=Format(), match=ExactMatch(forced=True))
    module = nrt_module(signals=signals, sampling=Sampling(**SAMPLING))
    _, recorder = fit(trainer, module, max_steps=2)
    for metrics in recorder.metrics:
        parts = [metrics[f"train/signal_{name}"] for name in ("gain", "format", "match")]
        assert metrics["train/reward"] == pytest.approx(sum(parts), abs=1e-5)
        assert metrics["train/signal_format"] == metrics["rollout/marker_rate"]


def fails_for_odd_traces(text: RolloutText) -> float:
    if len(text.trace) % 2:
        raise TimeoutError("no answer")
    return float(len(set(text.trace)))


def test_a_rollout_that_a_signal_fails_for_is_left_out_and_counted(trainer, caplog: pytest.LogCaptureFixture) -> None:
    judge = FunctionSignal("modules.test_signals_in_training.fails_for_odd_traces", concurrency=4)
    signals = sum_of(judge=judge, format=Format())
    with caplog.at_level(logging.WARNING, logger="nrt_lightning"):
        module, recorder = fit(trainer, nrt_module(signals=signals, sampling=Sampling(**SAMPLING)), max_steps=3)
    counts = [int(batch.rollouts.signal_values["judge"].isnan().sum()) for batch in recorder.batches]
    assert all(0 < count < 12 for count in counts)
    assert [m["train/signal_judge_failed"] for m in recorder.metrics] == counts
    assert [m["train/signal_format_failed"] for m in recorder.metrics] == [0, 0, 0]
    assert all(math.isfinite(value) for metrics in recorder.metrics for value in metrics.values())
    for batch, advantages in zip(recorder.batches, recorder.advantages):
        assert (advantages[batch.rollouts.signal_values["judge"].isnan()] == 0).all()
    assert any(advantages.abs().sum() > 0 for advantages in recorder.advantages)
    assert all(weight.isfinite().all() for weight in weights(module).values())
    messages = [record.message for record in caplog.records]
    assert len(messages) == 3
    for message, count in zip(messages, counts):
        assert all(part in message for part in ("'judge'", f"{count} of 12", "TimeoutError"))


def test_on_error_raise_stops_and_names_the_rollout(trainer) -> None:
    judge = FunctionSignal("modules.test_signals_in_training.fails_for_odd_traces")
    module = nrt_module(signals=WeightedSumOfSignals({"judge": judge}, on_error="raise"), sampling=Sampling(**SAMPLING))
    ids = "|".join(row.id for row in RegisterPrograms("train", 24).rows())
    with pytest.raises(InputError, match=rf"'judge'.*'({ids})'.*TimeoutError.*on_error"):
        fit(trainer, module, max_steps=1)


def test_no_answer_is_written_where_nobody_reads_one(trainer) -> None:
    _, recorder = fit(trainer, nrt_module(signals=sum_of(format=Format())), max_steps=1)
    assert recorder.batches[0].rollouts.policy_answers is None


def test_own_answers_go_on_from_their_trace_and_marker(trainer) -> None:
    sampling = Sampling(**SAMPLING, answer_temperature=0.0)
    _, recorder = fit(trainer, nrt_module(signals=sum_of(m=ExactMatch()), sampling=sampling), max_steps=1)
    rollouts = recorder.batches[0].rollouts
    fresh = nrt_module()
    fresh.configure_model()
    for n in range(len(rollouts)):
        b = rollouts.group_ids[n]
        prompt = rollouts.prompt_ids[b][rollouts.prompt_mask[b]]
        segments = rollouts.segments
        thought = rollouts.completion_ids[n][segments.trace_mask[n] | segments.marker_mask[n]]
        ids = torch.cat([prompt, thought]).unsqueeze(0)
        request = GenerationRequest(ids, torch.ones_like(ids).bool(), 6, fresh.policy.eos_ids, temperature=0.0)
        answer = TransformersEngine().generate(fresh.policy, request)
        own = rollouts.policy_answers
        assert own.ids[n][own.mask[n]].tolist() == answer.token_ids[0][answer.token_mask[0]].tolist()
        assert bool(own.ended[n]) == bool(answer.stopped[0])


def test_a_response_is_trace_marker_and_own_answer(trainer) -> None:
    module = nrt_module(train_response=True, sampling=Sampling(**SAMPLING))
    _, recorder = fit(trainer, module, max_steps=4)
    seen, ended = set(), set()
    for batch in recorder.batches:
        response, rollouts = batch.responses, batch.rollouts
        for n in range(len(response)):
            emitted = bool(rollouts.segments.marker_emitted[n])
            seen.add(emitted)
            own = rollouts.policy_answers.ids[n][rollouts.policy_answers.mask[n]].tolist()
            trace = rollouts.completion_ids[n][rollouts.segments.trace_mask[n]].tolist()
            end = [int(rollouts.end_ids[n])] * int(rollouts.end_ids[n] >= 0)
            assert end in ([], [module.policy.tokenizer.eos_token_id])
            ended.add(bool(end))
            expected = [*trace, *rollouts.marker_ids, *own] if emitted else [*trace, *end]
            assert response.completion_ids[n][response.segments.completion_mask[n]].tolist() == expected
        assert not response.segments.answer_mask.any()
        assert response.old_scores is None  # on-policy
    assert recorder.ratios == [1.0] * 4
    assert all(m["train/loss_answer"] == 0 for m in recorder.metrics)
    assert all(m["rollout/trace_tokens"] <= 12 for m in recorder.metrics)
    assert len(seen) == len(ended) == 2


@pytest.mark.parametrize("train_response", [False, True])
def test_in_parts_or_at_once_the_weights_are_the_same(trainer, train_response: bool) -> None:
    signals = sum_of(certainty=SelfCertainty(), rank=PerplexityRank(), match=ExactMatch(forced=True))
    settings = {"signals": signals, "train_response": train_response, "sampling": Sampling(**SAMPLING)}
    whole, before = fit(trainer, nrt_module(**settings), max_steps=2)
    parts, after = fit(trainer, nrt_module(**settings, max_tokens_per_micro_batch=150), max_steps=2)
    assert after.metrics[0]["train/micro_batches"] > 1
    for name, value in before.metrics[-1].items():
        if name.startswith(("train/signal_", "train/loss", "train/reward")):
            assert after.metrics[-1][name] == pytest.approx(value, rel=1e-3, abs=1e-4)
    for a, b in zip(weights(whole).values(), weights(parts).values()):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_signals_of_a_window_are_measured_by_the_old_policy(trainer) -> None:
    module = nrt_module(
        signals=sum_of(certainty=SelfCertainty()), train_response=True, sampling=Sampling(**SAMPLING),
        loss=NRTLoss(ClippedRatio()),
    )  # fmt: skip
    _, recorder = fit(trainer, module, registers(window=2), max_steps=2)
    first, second = recorder.batches
    assert second.responses.old_scores is not None
    assert recorder.ratios[0] == pytest.approx(1, abs=1e-4)
    assert recorder.ratios[1] > 1.001
    fresh = nrt_module()
    fresh.configure_model()
    from nrt_lightning.models.scoring.certainty import token_certainty

    for rollouts, response in ((b.rollouts, b.responses) for b in (first, second)):
        with fresh.policy.evaluating():
            certainty = token_certainty(fresh.policy.network, response)
        mask = response.segments.completion_mask
        expected = (certainty * mask).sum(1) / mask.sum(1).clamp(min=1)
        torch.testing.assert_close(rollouts.signal_values["certainty"], expected)


def test_filtered_responses_are_replaced_with_all_that_belongs_to_them(trainer) -> None:
    sampling = Sampling(**SAMPLING, refill_rounds=2)
    signals = sum_of(format=Format(), certainty=SelfCertainty())
    module = nrt_module(
        signals=signals, train_response=True, sampling=sampling, filters=[MinimumSpreadFilter(5.0)], loss=NRTLoss()
    )
    _, recorder = fit(trainer, module, registers(train=RegisterPrograms("train", 60)), max_steps=3)
    assert any(m["rollout/refilled_groups"] > 0 for m in recorder.metrics)
    for batch in recorder.batches:
        response, rollouts = batch.responses, batch.rollouts
        assert torch.equal(response.group_ids, rollouts.group_ids)
        assert len(rollouts.signal_values["certainty"]) == len(response) == 12
        trace = rollouts.segments.trace_mask
        width = min(trace.shape[1], response.completion_ids.shape[1])
        both = trace[:, :width]
        assert torch.equal(response.completion_ids[:, :width][both], rollouts.completion_ids[:, :width][both])
        for n, row in enumerate(batch.rows[b] for b in rollouts.group_ids.tolist()):
            answer = rollouts.completion_ids[n][rollouts.segments.answer_mask[n]]
            assert module.policy.tokenizer.decode(answer, skip_special_tokens=True) == row.answer


def test_multi_sample_bound_trains(trainer) -> None:
    module = nrt_module(aggregator=LogProb(), advantage=ClippedAdvantages(MultiSampleBound()))
    _, recorder = fit(trainer, module, max_steps=1)
    assert math.isfinite(recorder.metrics[0]["train/loss"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"aggregator": LogProb(), "advantage": MultiSampleBound(), "sampling": Sampling(group_size=1)}, "group_size"),
        ({"aggregator": GeometricMean(), "advantage": MultiSampleBound()}, "Set aggregator to LogProb"),
        ({"aggregator": GeometricMean(), "advantage": ClippedAdvantages(MultiSampleBound())}, "aggregator to LogProb"),
        ({"signals": sum_of(f=Format()), "advantage": GroupNormalized(baseline="clip")}, "GainOverBaseline"),
        (
            {
                "signals": sum_of(r=PerplexityRank()),
                "sampling": Sampling(group_size=1),
                "advantage": GroupNormalized(scale="none", center=False),
            },
            r"signals\.r compares",
        ),
        ({"train_response": True, "sampling": Sampling(answer_temperature=0.0)}, "answer_temperature"),
    ],
)
def test_parts_that_do_not_fit_are_refused_before_training(settings, message: str) -> None:
    with pytest.raises(InputError, match=message):
        nrt_module(**settings)


def test_signals_that_were_not_measured_are_missed(trainer, policy) -> None:
    from methods.hand_made import HandMade

    module = nrt_module(policy=policy, signals=sum_of(match=ExactMatch()))
    prompts = HandMade.make(policy).prompts(response=False)
    with pytest.raises(InputError, match="OnPolicyRollout"):
        module.method.compute_rewards(prompts)
