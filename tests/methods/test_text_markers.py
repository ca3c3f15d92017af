"""Markers of ordinary tokens: log-probs, masks and rewards equal those of sequences put together by hand."""

import dataclasses
import math
from dataclasses import dataclass

import pytest
import torch
from subwords import byte_level, save_model

from nrt_lightning import GeometricMean, NRTModule, PlainTemplate, Policy, Sampling, TransformersEngine
from nrt_lightning.data import MemorySource, QADataModule
from nrt_lightning.data.default_template import fit_together
from nrt_lightning.data.encoding import PromptEncoder
from nrt_lightning.functional.continuation import continuations
from nrt_lightning.models.scoring.base import PromptCopies
from nrt_lightning.models.scoring.packed_groups import PackedGroups
from nrt_lightning.models.scoring.prompt_tree import PromptTree
from nrt_lightning.rollouts import RolloutEngine, assemble, respond
from nrt_lightning.rollouts.answering import after_marker
from nrt_lightning.rollouts.engine import GenerationRequest, Generations
from nrt_lightning.rollouts.sampled_tokens import end_at, generate
from nrt_lightning.rollouts.stop_text import Ending, StopText
from nrt_lightning.structures import PolicyAnswers, Row

MARKERS = {  # separator, end of answers, its usual number of tokens
    " =>": ("", "\n\n", 1),
    "=>\n": (None, None, 2),
    "</think>\n<answer>": (None, "</answer>", None),  # the tags of VeriFree and RLPR
    "\nAnswer:": (None, "\n", None),
}
TRACES = ["6 + 9 = 15", "so.\n", "", "15 - 8 = 7 and more"]
ROWS = [Row("0", [{"role": "user", "content": "6 + 9?"}], "15"), Row("1", [{"role": "user", "content": "7?"}], "seven")]


@dataclass
class Case:
    """Four sampled rows: the marker in its usual tokens, letter by letter, not written, and with more behind it."""

    policy: Policy
    prompts: object
    rows: list  # ids as sampled
    marker_ids: list  # of each row, as the completion must have them
    traces: list
    emitted: list

    @property
    def generations(self):
        width = max(map(len, self.rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in self.rows])
        mask = torch.arange(width) < torch.tensor([[len(row)] for row in self.rows])
        sampled = Generations(ids, mask, stopped=torch.zeros(len(ids), dtype=torch.bool))
        return end_at(sampled, StopText(self.policy.tokenizer, self.policy.markup.marker))


def usual(tokenizer, text):
    return continuations("a", [text], tokenizer)[0]


@pytest.fixture(params=MARKERS, ids=repr)
def case(request, tmp_path):
    marker, (separator, end, width) = request.param, MARKERS[request.param]
    policy = Policy(save_model(tmp_path, byte_level()), marker, separator=separator, answer_end=end).load()
    policy.eval()
    tokenizer = policy.tokenizer
    assert width in (None, len(policy.markup.marker_ids))
    template = fit_together(PlainTemplate("Q: {question}\nA:"), tokenizer, policy)
    encoded = PromptEncoder(tokenizer, template).encode(ROWS)
    prompts = encoded.collate([encoded[0], encoded[1]])
    trace_ids = [usual(tokenizer, text) for text in TRACES]
    letters = [usual(tokenizer, letter)[0] for letter in marker]
    canonical = list(policy.markup.marker_ids)
    beyond = [*letters[:-1], *usual(tokenizer, marker[-1] + "z")]
    if len(beyond) > len(letters):  # no token holds the marker's last letter and more
        beyond = canonical
    written = [canonical, letters, [], beyond]
    emitted = [True, True, False, beyond == canonical]
    in_completion = [canonical, letters, canonical, canonical]
    rows = [trace + own for trace, own in zip(trace_ids, written, strict=True)]
    return Case(policy, prompts, rows, in_completion, trace_ids, emitted)


def by_hand(case, n):
    """Prompt, trace, marker and answer of a row, without padding."""
    b = n // 2
    prompt = case.prompts.prompt_ids[b][case.prompts.prompt_mask[b]].tolist()
    answer = case.prompts.answer_ids[b][case.prompts.answer_mask[b]].tolist()
    return prompt, case.traces[n], case.marker_ids[n], answer


def logprobs_of(policy, before, after):
    """Log-probs of `after`, by one plain forward pass."""
    with torch.no_grad():
        logits = policy.network(torch.tensor([before + after])).logits[0]
    return logits.log_softmax(-1)[len(before) - 1 : -1].gather(-1, torch.tensor(after)[:, None])[:, 0]


def test_answers_follow_the_marker_and_end(case):
    markup, tokenizer = case.policy.markup, case.policy.tokenizer
    for n, answer in ((0, "15"), (2, "seven")):
        _, _, _, ids = by_hand(case, n)
        text = tokenizer.decode(list(markup.marker_ids) + ids)
        assert text.removeprefix(markup.marker) == markup.separator + answer + markup.end


@pytest.mark.parametrize("scoring", [PromptCopies(), PromptTree(), PackedGroups()], ids=lambda s: type(s).__name__)
def test_log_probs_and_masks_equal_a_concatenation(case, scoring):
    case.policy.scoring = scoring
    rollouts = assemble(case.prompts, case.generations, case.policy.markup)
    segments = rollouts.segments
    assert segments.marker_emitted.tolist() == case.emitted
    with torch.no_grad():
        scores = case.policy.score(rollouts, baseline=True)
    for n in range(4):
        prompt, trace, marker, answer = by_hand(case, n)
        assert rollouts.completion_ids[n][segments.trace_mask[n]].tolist() == trace
        assert rollouts.completion_ids[n][segments.marker_mask[n]].tolist() == marker
        assert rollouts.completion_ids[n][segments.answer_mask[n]].tolist() == answer
        whole = trace + marker + answer
        assert segments.completion_mask[n].tolist() == [True] * len(whole) + [False] * (
            len(segments.answer_mask[n]) - len(whole)
        )
        torch.testing.assert_close(
            scores.logprobs[n][: len(whole)], logprobs_of(case.policy, prompt, whole), atol=2e-5, rtol=1e-5
        )
        direct = logprobs_of(case.policy, prompt + list(case.policy.markup.marker_ids), answer)
        baseline = scores.baseline_logprobs[n // 2][: len(answer)]
        torch.testing.assert_close(baseline, direct, atol=2e-5, rtol=1e-5)


def test_rewards_equal_the_formula(case):
    module = NRTModule(case.policy, aggregator=GeometricMean(), sampling=Sampling(group_size=2))
    case.prompts.rollouts = rollouts = assemble(case.prompts, case.generations, case.policy.markup)
    with torch.no_grad():
        rollouts.old_scores = case.policy.score(rollouts, baseline=True)
        rewards = module.method.compute_rewards(case.prompts).value
    for n in range(4):
        prompt, trace, marker, answer = by_hand(case, n)
        expected = logprobs_of(case.policy, prompt + trace + marker, answer).mean().exp()
        assert math.isclose(rewards[n], float(expected), rel_tol=1e-4)


def test_answers_are_asked_after_the_markers_own_tokens(case):
    repeated = case.prompts.apply(lambda tensor: tensor.repeat_interleave(2, dim=0))
    ids, mask = after_marker(repeated, case.generations, case.policy.markup)
    for n in range(4):
        prompt, trace, marker, _ = by_hand(case, n)
        assert ids[n][mask[n]].tolist() == prompt + trace + marker


def test_responses_hold_the_sampled_tokens(case):
    rollouts = assemble(case.prompts, case.generations, case.policy.markup)
    own = torch.tensor([[7, 8], [9, 0], [7, 8], [7, 8]])
    mask = torch.tensor([[True, True], [True, False], [True, True], [True, True]])
    rollouts.policy_answers = PolicyAnswers(own, mask, torch.ones(4, dtype=torch.bool))
    written = respond(rollouts)
    for n in range(4):
        _, trace, marker, _ = by_hand(case, n)
        expected = trace + marker + own[n][mask[n]].tolist() if case.emitted[n] else trace
        assert written.completion_ids[n][written.segments.completion_mask[n]].tolist() == expected


class Echo(RolloutEngine):
    """Writes the case's rows for every request of traces, and the reference's first row for answers."""

    def __init__(self, case):
        self.case = case

    def generate(self, policy, request, progress=None):
        assert request.stop_text in (policy.markup.marker, policy.markup.end_text)
        return self.case.generations


def test_a_step_trains_and_counts_markers_that_are_cut_into(case, quiet_trainer):
    module = NRTModule(case.policy, engine=Echo(case), sampling=Sampling(group_size=2))
    rows = [{"question": row.question, "answer": row.answer} for row in ROWS]
    data = QADataModule(MemorySource(rows), template=PlainTemplate("Q: {question}\nA:"), batch_size=2)
    trainer = quiet_trainer(max_steps=1)
    trainer.fit(module, data)
    logged = trainer.callback_metrics
    assert float(logged["rollout/marker_rate"]) == sum(case.emitted) / 4
    assert float(logged["rollout/marker_overrun_share"]) == (0.25 if not case.emitted[3] else 0.0)


class Deaf(RolloutEngine):
    """An engine of a user that knows no stop text."""

    def generate(self, policy, request, progress=None):
        return TransformersEngine().generate(policy, dataclasses.replace(request, stop_text=None), progress)


def test_an_engine_that_knows_no_stop_text_still_finds_markers(subword_policy):
    policy = subword_policy
    ids = torch.tensor([policy.tokenizer("Question: 6")["input_ids"]] * 2)
    mask = torch.ones_like(ids, dtype=torch.bool)
    request = GenerationRequest(ids, mask, 16, policy.eos_ids, 8, seed=1, stop_text="e")
    one, other = generate(TransformersEngine(), policy, request), generate(Deaf(), policy, request)
    assert (one.ending > Ending.TOKEN).any()
    for name in ("token_ids", "token_mask", "ending", "stop_width", "stopped"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
