"""Answers to questions: draws follow from the questions, confidences are those of scoring."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fake_vllm import FakeVLLM
from tiny import ANSWERS, QUESTIONS, make_prompts

from nrt_lightning import ExactMatch, InputError, NumericMatch, Policy, TransformersEngine, VLLMServerEngine
from nrt_lightning.evaluation import AnswerSettings, Questionnaire, evaluate
from nrt_lightning.evaluation.evaluate import evaluate_direct_answers
from nrt_lightning.evaluation.questions import check_references, distinct
from nrt_lightning.structures import Prompts, Row, Sampling

SAMPLING = Sampling(group_size=3, max_trace_tokens=8, max_answer_tokens=8, temperature=1.0)
GREEDY = replace(SAMPLING, group_size=1, temperature=0.0)


def asked(policy: Policy, **settings: object) -> Questionnaire:
    return Questionnaire(
        policy, TransformersEngine(), metrics={"em": ExactMatch()}, **{"sampling": SAMPLING} | settings
    )


def test_answers_follow_from_the_questions_and_not_from_their_batch(policy: Policy, prompts: Prompts) -> None:
    together = asked(policy).answer(prompts)
    alone = [answer for n in range(3) for answer in asked(policy).answer(prompts.slice(n, n + 1))]
    for one, other in zip(together, alone, strict=True):
        assert [s.trace for s in one.samples] == [s.trace for s in other.samples]
        assert [s.answer for s in one.samples] == [s.answer for s in other.samples]
    assert len({sample.trace for sample in together[0].samples}) > 1, "samples of a question differ"
    assert asked(policy, seed=1).answer(prompts)[0].samples[0].trace != together[0].samples[0].trace


def test_no_random_state_is_consumed(policy: Policy, prompts: Prompts) -> None:
    before = torch.get_rng_state()
    asked(policy).answer(prompts)
    assert torch.equal(torch.get_rng_state(), before)


def test_one_greedy_answer_is_that_of_validation(policy: Policy, prompts: Prompts) -> None:
    found = asked(policy, sampling=GREEDY).answer(prompts)
    with policy.evaluating():
        known = evaluate(policy, TransformersEngine(), prompts, GREEDY, max_answer_tokens=8)
    assert [a.samples[0].answer for a in found] == [text.policy_answer for text in known.texts]
    assert [a.samples[0].trace for a in found] == [text.trace for text in known.texts]
    for name, values in (("confidence", [a.samples[0].confidence for a in found]),
                         ("confidence_without_trace", [a.confidence_without_trace for a in found])):  # fmt: skip
        assert torch.allclose(torch.tensor(values), known.outcomes[name])


def test_a_policy_without_traces_answers_at_once(policy: Policy, prompts: Prompts) -> None:
    found = asked(policy, sampling=GREEDY, writes_traces=False).answer(prompts)
    with policy.evaluating():
        known = evaluate_direct_answers(policy, TransformersEngine(), prompts, max_answer_tokens=8)
    assert [a.samples[0].answer for a in found] == [text.policy_answer for text in known.texts]
    assert torch.allclose(torch.tensor([a.samples[0].confidence for a in found]), known.outcomes["confidence"])
    sampled = asked(policy, writes_traces=False).answer(prompts)
    assert len({sample.answer for sample in sampled[0].samples}) > 1


def test_confidences_cost_nothing_where_they_are_not_asked_for(policy: Policy, prompts: Prompts, monkeypatch) -> None:
    monkeypatch.setattr(policy, "score", lambda *args, **settings: pytest.fail("scored"))
    found = asked(policy, confidence=False).answer(prompts)
    assert found[0].samples[0].confidence is found[0].confidence_without_trace is None


def test_rows_without_answers_are_answered(policy: Policy) -> None:
    prompts = make_prompts(policy, QUESTIONS, ANSWERS)
    prompts.answer_ids, prompts.answer_mask = prompts.answer_ids[:, :0], prompts.answer_mask[:, :0]
    prompts.rows = [replace(row, answer=None) for row in prompts.rows]
    found = Questionnaire(policy, TransformersEngine(), SAMPLING, {}, confidence=False).answer(prompts)
    assert found[0].reference is None


def test_a_server_writes_the_same_greedy_answers(policy: Policy, prompts: Prompts, fake: FakeVLLM, url: str) -> None:
    here = asked(policy, sampling=GREEDY).answer(prompts)
    there = Questionnaire(policy, VLLMServerEngine([url]), GREEDY, {"em": ExactMatch()}).answer(prompts)
    assert [a.samples[0].answer for a in here] == [a.samples[0].answer for a in there]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"samples": 0}, "samples=0"),
        ({"samples": 4, "temperature": 0.0}, r"samples=4.*temperature=0"),
        ({"temperature": -1.0}, r"temperature=-1"),
        ({"top_p": 0.0}, r"top_p=0"),
        ({"max_answer_tokens": 0}, "max_answer_tokens=0"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        AnswerSettings(**settings)


def test_several_answers_are_sampled_and_one_is_greedy() -> None:
    assert AnswerSettings().sampling({}).temperature == 0
    drawn = AnswerSettings(samples=4, max_trace_tokens=7).sampling({"max_trace_tokens": 9, "max_answer_tokens": 5})
    assert (drawn.group_size, drawn.temperature, drawn.max_trace_tokens, drawn.max_answer_tokens) == (4, 1, 7, 5)


def row(answer: str | None) -> Row:
    return Row("7", [{"role": "user", "content": "?"}], answer, "q.csv:3")


def test_a_row_without_what_a_metric_needs_is_named() -> None:
    check_references([row("so 3")], {"n": NumericMatch()}, confidence=True)
    with pytest.raises(InputError, match=r"metrics\.n: NumericMatch.*q\.csv:3 has no answer.*1 of 2"):
        check_references([row("3"), row(None)], {"n": NumericMatch()})
    with pytest.raises(InputError, match=r"a number.*q\.csv:3.*'blue'"):
        check_references([row("blue")], {"n": NumericMatch()})
    with pytest.raises(InputError, match=r"confidence=true.*q\.csv:3"):
        check_references([row(None)], {}, confidence=True)


def test_equal_ids_become_distinct() -> None:
    rows = [Row(name, []) for name in ("a", "a", "a#2", "a")]
    assert len({row.id for row in distinct(rows)}) == 4
    assert distinct(rows)[0] is rows[0]
