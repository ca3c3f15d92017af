"""Signals: what each says of a rollout, against the definition written out."""

from __future__ import annotations

import math
import random

import pytest
import torch
from methods.hand_made import EMITTED, ENDED, GROUP, HandMade

from nrt_lightning import (
    AnswerConfidence,
    AnswerLength,
    ArithmeticMean,
    ExactMatch,
    Format,
    FunctionSignal,
    GainOverBaseline,
    GeometricMean,
    InputError,
    LengthPenalty,
    LogProb,
    MathVerify,
    PerplexityRank,
    Policy,
    ReasoningEfficiency,
    ReasoningReflection,
    Repetition,
    SelfCertainty,
)
from nrt_lightning.functional import pack_segment
from nrt_lightning.signals import RolloutEvidence, RolloutText, ScoreEvidence
from nrt_lightning.signals.repetition import most_repeated
from nrt_lightning.structures import Prompts


@pytest.fixture(scope="module")
def batch() -> HandMade:
    return HandMade.make(Policy("embedded:registers-base").load())


@pytest.fixture
def prompts(batch: HandMade) -> Prompts:
    return batch.prompts(response=False)


def evidence(prompts: Prompts, baseline: bool = True) -> ScoreEvidence:
    rollouts = prompts.rollouts
    rows = rollouts.group_ids
    scores = rollouts.old_scores
    logprobs = pack_segment(scores.logprobs, rollouts.segments.answer_mask, rollouts.answer_ids.shape[1])
    known = scores.baseline_logprobs[rows] if baseline else None
    return ScoreEvidence(rollouts, logprobs, rollouts.answer_mask[rows], known)


def test_confidence_is_the_aggregation_and_can_ask_for_an_ended_trace(prompts: Prompts) -> None:
    plain, ended = AnswerConfidence(GeometricMean()), AnswerConfidence(GeometricMean(), only_ended=True)
    values = plain(evidence(prompts))
    assert (values > 0).all()
    assert torch.equal(ended(evidence(prompts)), torch.where(torch.tensor(EMITTED), values, 0))
    left_out = AnswerConfidence(LogProb(), only_ended=True)(evidence(prompts))
    assert left_out.isfinite().tolist() == EMITTED


def test_a_gain_may_ask_for_an_emitted_marker(prompts: Prompts) -> None:
    gains = GainOverBaseline(ArithmeticMean())(evidence(prompts))
    ended = GainOverBaseline(ArithmeticMean(), only_ended=True)
    assert torch.equal(ended(evidence(prompts)), torch.where(torch.tensor(EMITTED), gains, 0))


def test_gain_is_the_difference_to_the_empty_trace(prompts: Prompts, batch: HandMade) -> None:
    gains = GainOverBaseline(ArithmeticMean())(evidence(prompts)).tolist()
    for gain, r in zip(gains, batch.rollouts):
        c, b = ([math.exp(x) for x in row] for row in (r.answer.old, r.baseline))
        assert gain == pytest.approx(sum(c) / len(c) - sum(b) / len(b))
    assert min(gains) < 0
    assert GainOverBaseline(ArithmeticMean(), clip=True)(evidence(prompts)).tolist() == pytest.approx(
        [max(0, gain) for gain in gains]
    )
    with pytest.raises(InputError, match="baseline_logprobs"):
        GainOverBaseline(ArithmeticMean())(evidence(prompts, baseline=False))


def test_format_requires_that_the_rollout_ended(prompts: Prompts) -> None:
    assert Format()(evidence(prompts)).tolist() == EMITTED
    both = [m and e for m, e in zip(EMITTED, ENDED)]
    assert Format(policy_answer=True)(evidence(prompts)).tolist() == both
    rollouts = prompts.rollouts
    rollouts.policy_answers.ids[0, 1] = rollouts.marker_ids[0]
    assert both[0]
    assert Format(policy_answer=True)(evidence(prompts)).tolist() == [False, *both[1:]], "the marker once"


def test_length_costs_from_the_target_on(prompts: Prompts, batch: HandMade) -> None:
    lengths = [len(r.trace_ids) for r in batch.rollouts]
    assert LengthPenalty(4)(evidence(prompts)).tolist() == pytest.approx([-max(0, n - 4) / 4 for n in lengths])
    both = LengthPenalty(4, both_sides=True)(evidence(prompts))
    assert both.tolist() == pytest.approx([-abs(n - 4) / 4 for n in lengths])
    with pytest.raises(InputError, match="target"):
        LengthPenalty(0)


def test_answer_length_compares_with_the_reference_answer(prompts: Prompts, batch: HandMade) -> None:
    expected = [1 - 0.5 * abs(len(r.answer.old) - len(r.own_ids)) / len(r.answer.old) for r in batch.rollouts]
    assert AnswerLength(beta=0.5)(evidence(prompts)).tolist() == pytest.approx(expected)
    prompts.rollouts.policy_answers = None
    with pytest.raises(InputError, match=r"AnswerLength.*policy_answers"):
        AnswerLength()(evidence(prompts))


def test_repetition_counts_overlapping_grams(prompts: Prompts) -> None:
    values = Repetition(n=10, times=8)(evidence(prompts)).tolist()
    assert values == [0, 0, 0, 0, -1, 0, 0, 0]
    assert Repetition(n=10, times=1000)(evidence(prompts)).tolist() == [0] * 8


@pytest.mark.parametrize("seed", range(20))
def test_most_repeated_is_counting_by_hand(seed: int) -> None:
    rng = random.Random(seed)
    tokens, n = [rng.randrange(3) for _ in range(rng.randrange(12))], rng.randrange(1, 5)
    grams = [tokens[i : i + n] for i in range(len(tokens) - n + 1)]
    assert most_repeated(tokens, n) == max((grams.count(g) for g in grams), default=0)


def test_exact_match_reads_what_the_policy_wrote(prompts: Prompts, batch: HandMade) -> None:
    found = RolloutEvidence(batch.policy, prompts)
    right = [r.right and r.ended for r in batch.rollouts]
    assert right != [r.right for r in batch.rollouts], "an answer that its limit cut is none"
    assert ExactMatch().measure(found).tolist() == [r and e for r, e in zip(right, EMITTED)]
    assert ExactMatch(forced=True).measure(found).tolist() == right


def test_texts_are_those_that_were_written(prompts: Prompts, batch: HandMade) -> None:
    from methods.hand_made import ANSWERS, OWN, QUESTIONS, TRACES

    for n, text in enumerate(RolloutEvidence(batch.policy, prompts).texts):
        assert (text.question, text.answer) == (QUESTIONS[n // GROUP], ANSWERS[n // GROUP])
        assert (text.trace, text.policy_answer) == (TRACES[n], OWN[n])
        assert (text.marker_emitted, text.policy_answer_ended) == (EMITTED[n], ENDED[n])


def length_of(text: RolloutText) -> float:
    return float(len(text.trace))


def test_a_function_is_called_with_each_text(prompts: Prompts, batch: HandMade) -> None:
    found = RolloutEvidence(batch.policy, prompts)
    signal = FunctionSignal("signals.test_signals.length_of", minimum=0)
    assert signal.measure(found).tolist() == [len(t.trace) for t in found.texts]
    assert signal.needs_policy_answers
    assert not FunctionSignal("signals.test_signals.length_of", policy_answers=False).needs_policy_answers


@pytest.mark.parametrize("path", ["length_of", "no_such_module.length_of", "signals.test_signals.lenght_of", "math.pi"])
def test_functions_that_do_not_exist_are_refused(path: str) -> None:
    with pytest.raises(InputError, match=path):
        FunctionSignal(path)


def test_math_verify_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"nrt-lightning\[math\]"):
        MathVerify()


def test_math_verify_finds_equal_expressions(prompts: Prompts) -> None:
    pytest.importorskip("math_verify")
    row = prompts.rows[0]
    read = MathVerify().read
    assert read(RolloutText("q", "0.5", "", True, r"$\frac{1}{2}$", True, row)) == 1
    assert read(RolloutText("q", "0.5", "", True, "0.6", True, row)) == 0
    assert read(RolloutText("q", "0.5", "", False, "0.5", True, row)) == 0


def test_certainty_is_0_for_a_uniform_policy_and_grows_with_its_confidence(batch: HandMade) -> None:
    policy = Policy("embedded:registers-base").load()
    prompts = batch.prompts(response=False)
    head = policy.network.get_output_embeddings().weight
    values = []
    with policy.evaluating():
        for scale in (0.0, 1.0, 3.0):
            before = head.clone()
            head.mul_(scale)
            values.append(SelfCertainty().measure(RolloutEvidence(policy, prompts)))
            head.copy_(before)
    assert values[0].tolist() == pytest.approx([0] * 8, abs=1e-5)
    assert (values[1] > 0.1).all()
    assert (values[2] > values[1]).all()


def test_reflection_weights_tokens_by_their_spread(prompts: Prompts) -> None:
    """A token that no trace changes counts nothing, whatever its confidence."""
    one = evidence(prompts)
    one.answer_logprobs[:GROUP, 0] = -1.5
    before = ReasoningReflection()(one)
    one.answer_logprobs[:GROUP, 0] = -9.0
    assert torch.allclose(ReasoningReflection()(one), before)
    one.answer_logprobs[0, 0] = -1.0
    assert not torch.allclose(ReasoningReflection()(one)[:GROUP], before[:GROUP])
    assert ReasoningReflection(threshold=100.0)(one).tolist() == [0.0] * 8


def test_perplexity_ranks_among_the_well_formed(prompts: Prompts) -> None:
    ranks = PerplexityRank()(evidence(prompts)).tolist()
    formed = [m and e for m, e in zip(EMITTED, ENDED)]
    for start in (0, GROUP):
        group = [r for r, f in zip(ranks[start:][:GROUP], formed[start:]) if f]
        assert sorted(group) == pytest.approx([(i + 1) / len(group) for i in range(len(group))])
    assert all(r == 0 for r, f in zip(ranks, formed) if not f)


def test_efficiency_needs_a_shorter_and_a_better_trace(prompts: Prompts) -> None:
    prompts.rollouts.segments.marker_emitted[:] = True
    prompts.rollouts.policy_answers = None
    one = evidence(prompts)
    one.answer_logprobs[:GROUP] = torch.tensor([[-9.0], [-0.1], [-1.0], [-5.0]])
    lengths = one.rollouts.segments.trace_mask.sum(1)[:GROUP].tolist()
    values = ReasoningEfficiency()(one)[:GROUP].tolist()
    nll = [9.0, 0.1, 1.0, 5.0]
    log_ppl = [x / (1 + math.log10(n)) for x, n in zip(nll, lengths)]
    expected = [
        sum(lengths[j] > lengths[i] and log_ppl[j] > log_ppl[i] for j in range(GROUP)) / 3 for i in range(GROUP)
    ]
    assert values == pytest.approx(expected)
    assert max(expected) > 0


def test_signals_of_a_group_depend_on_that_group_alone(prompts: Prompts, batch: HandMade) -> None:
    """Signals of a group do not change with the other groups of the batch."""
    whole = evidence(prompts)
    rows, prompt = torch.arange(GROUP, 2 * GROUP), torch.tensor([1])
    part = batch.prompts(response=False)
    part.rollouts = part.rollouts.select(prompt, rows)
    alone = evidence(part)
    for signal in (
        AnswerConfidence(GeometricMean()), GainOverBaseline(ArithmeticMean()), Format(policy_answer=True),
        LengthPenalty(4),
        AnswerLength(), Repetition(), ReasoningReflection(), PerplexityRank(), ReasoningEfficiency(),
    ):  # fmt: skip
        torch.testing.assert_close(signal(alone), signal(whole)[rows])
