"""A fixed batch, as plain numbers and as the tensors that a module reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch

from nrt_lightning import Policy
from nrt_lightning.rollouts import respond
from nrt_lightning.signals import RolloutEvidence
from nrt_lightning.structures import PolicyAnswers, Prompts, Rollouts, Row, Scores, Segments

ENTROPY = 0.7  # nats of entropy for a nat of surprise
GROUP = 4  # rollouts of each of the two prompts
QUESTIONS = ["a4b*2c+2d+3?dc:", "b1c+1d*3?dc:"]
ANSWERS = ["d3,c0", "d1"]
OWN = ["d3,c0", "d3", "d3,c0", "c0", "d1", "d2", "d1", "d1"]
TRACES = ["b*2=3", "c+2", "b*2=3c+2=0", "d", "c+1=2" * 10, "b", "d*3=1", "c+1"]
EMITTED = [True, True, False, True, True, False, True, True]
TRUNCATED = [False, False, True, False, False, False, False, False]  # an end token ended the other without marker
ENDED = [True, False, True, True, True, True, True, False]


@dataclass
class Tokens:
    """Log-probs of tokens under the policy, the old policy and the reference."""

    new: list[float]
    old: list[float]
    ref: list[float]

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.new + other.new, self.old + other.old, self.ref + other.ref)


@dataclass
class Rollout:
    """One rollout in plain numbers."""

    prompt: int
    emitted: bool
    ended: bool
    truncated: bool
    trace: Tokens
    marker: Tokens
    answer: Tokens
    own: Tokens
    end: Tokens  # the end token that ended a trace without marker
    baseline: list[float]  # of the reference answer after the empty trace
    trace_ids: list[int]
    own_ids: list[int]
    right: bool  # the policy's answer equals the reference answer

    def sampled(self, response: bool) -> Tokens:
        """The tokens sampled from the policy."""
        if not self.emitted:
            return self.trace + self.end if response else self.trace
        return self.trace + self.marker + self.own if response else self.trace + self.marker

    def response_ids(self, marker: int, end: int) -> list[int]:
        """The ids of the sampled tokens of the response."""
        if self.emitted:
            return [*self.trace_ids, marker, *self.own_ids]
        return self.trace_ids if self.truncated else [*self.trace_ids, end]


@dataclass
class HandMade:
    """The batch."""

    policy: Policy
    rollouts: list[Rollout] = field(default_factory=list)

    @classmethod
    def make(cls, policy: Policy) -> HandMade:
        random, batch = Random(7), cls(policy)
        answers = [batch.ids(answer, end=True) for answer in ANSWERS]
        baselines = [[-random.uniform(0.7, 2.5) for _ in ids] for ids in answers]
        for n, text in enumerate(TRACES):
            b, trace, own = n // GROUP, batch.ids(text), batch.ids(OWN[n], end=ENDED[n])
            end = [0] * (not EMITTED[n] and not TRUNCATED[n])
            parts = [tokens(random, len(ids)) for ids in (trace, [0], answers[b], own, end)]
            flags, right = (EMITTED[n], ENDED[n], TRUNCATED[n]), OWN[n] == ANSWERS[b]
            batch.rollouts.append(Rollout(b, *flags, *parts, baselines[b], trace, own, right))
        return batch

    def ids(self, text: str, end: bool = False) -> list[int]:
        ids = self.policy.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [*ids, self.policy.tokenizer.eos_token_id] if end else ids

    def prompts(self, response: bool, signals: Any = None) -> Prompts:
        """The batch with old log-probs: off-policy, so that ratios and clipping have an effect."""
        questions = [self.policy.tokenizer(q)["input_ids"] for q in QUESTIONS]
        answers = [self.ids(answer, end=True) for answer in ANSWERS]
        width = max(map(len, questions))
        prompts = Prompts(
            prompt_ids=torch.tensor([[0] * (width - len(q)) + q for q in questions]),
            prompt_mask=torch.tensor([[False] * (width - len(q)) + [True] * len(q) for q in questions]),
            answer_ids=padded(answers).long(),
            answer_mask=padded([[1] * len(a) for a in answers]).bool(),
            rows=[Row(str(i), [{"role": "user", "content": q}], a) for i, (q, a) in enumerate(zip(QUESTIONS, ANSWERS))],
        )
        prompts.rollouts = self._rollouts(prompts, answers)
        if response:
            prompts.responses = respond(prompts.rollouts)
            prompts.responses.old_scores = old_scores([r.sampled(True).old for r in self.rollouts])
        if signals is not None:
            with self.policy.evaluating():
                prompts.rollouts.signal_values = signals.measure(RolloutEvidence(self.policy, prompts))
        return prompts

    def _rollouts(self, prompts: Prompts, answers: list[list[int]]) -> Rollouts:
        marker, end, rows = self.policy.markup.marker_ids[0], self.policy.tokenizer.eos_token_id, self.rollouts
        lengths = [(len(r.trace_ids), 1, len(answers[r.prompt])) for r in rows]

        def mask(part: int) -> torch.Tensor:
            return padded([[float(i == part) for i, n in enumerate(row) for _ in range(n)] for row in lengths]).bool()

        return Rollouts(
            prompt_ids=prompts.prompt_ids,
            prompt_mask=prompts.prompt_mask,
            answer_ids=prompts.answer_ids,
            answer_mask=prompts.answer_mask,
            completion_ids=padded([[*r.trace_ids, marker, *answers[r.prompt]] for r in rows]).long(),
            segments=Segments(mask(0), mask(1), mask(2), torch.tensor([r.emitted for r in rows])),
            group_ids=torch.tensor([r.prompt for r in rows]),
            truncated=torch.tensor([r.truncated for r in rows]),
            end_ids=torch.tensor([end if r.end.new else -1 for r in rows]),
            marker_ids=(marker,),
            old_scores=old_scores(
                [(r.trace + r.marker + r.answer).old for r in rows], padded([rows[0].baseline, rows[GROUP].baseline])
            ),
            policy_answers=PolicyAnswers(
                ids=padded([r.own_ids for r in rows]).long(),
                mask=padded([[1] * len(r.own_ids) for r in rows]).bool(),
                ended=torch.tensor([r.ended for r in rows]),
            ),
        )

    def logprobs(self, rollouts: Rollouts, of: str) -> torch.Tensor:
        """The `new` or `ref` log-probs of the completions. `[N, C]`"""
        if rollouts.policy_answers is None:  # responses
            return padded([getattr(r.sampled(True), of) for r in self.rollouts])
        return padded([getattr(r.trace + r.marker + r.answer, of) for r in self.rollouts])

    def scores(self, rollouts: Rollouts, baseline: bool = False) -> Scores:
        """Replaces `Policy.score`."""
        logprobs = self.logprobs(rollouts, "new").requires_grad_()
        return Scores(logprobs, -ENTROPY * logprobs.detach())


def old_scores(logprobs: list[list[float]], baseline: torch.Tensor | None = None) -> Scores:
    old = padded(logprobs)
    return Scores(old, torch.zeros_like(old), baseline)


def tokens(random: Random, count: int) -> Tokens:
    new = [-random.uniform(0.05, 2.0) for _ in range(count)]
    old = [min(-1e-3, x + random.choice([0.0, 0.1, -0.1, 0.5, -0.5])) for x in new]
    return Tokens(new, old, [min(-1e-3, x + random.uniform(-0.3, 0.3)) for x in new])


def padded(rows: list[list[float]]) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([[float(x) for x in row] + [0.0] * (width - len(row)) for row in rows], dtype=torch.float64)
