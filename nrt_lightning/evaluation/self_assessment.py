"""What a policy thinks of its own answers: how often sampled answers agree, and how likely they are to it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.evaluation.evaluate import right_answers
from nrt_lightning.evaluation.probe import repeat
from nrt_lightning.models.policy.texts import decode_answers
from nrt_lightning.rollouts import GenerationRequest
from nrt_lightning.rollouts.answering import after_marker, answer_limits, within
from nrt_lightning.rollouts.engine import names_of, trace_request
from nrt_lightning.rollouts.sampled_tokens import generate
from nrt_lightning.structures import Prompts, Sampling
from nrt_lightning.training.method import Method


@dataclass
class Assessment:
    """The sampled answers of a policy to B questions."""

    answers: list[str]  # B, the most frequent one of each question; the first of equals
    agreement: Tensor  # [B] fraction of the sampled answers that are this one
    confidence: Tensor  # [B] mean probability of the sampled answers, each after its trace
    right: Tensor  # [B] True: the most frequent answer is right, see `right_answers`


def assess(method: Method, prompts: Prompts, sampling: Sampling, seed: int) -> Assessment:
    """Sample K traces for each question, and an answer after each.

    Costs B * K traces and answers, and no scores. The reference answers are read for `right` alone, and for the limits
    of the answers, as in `evaluate`.

    Args:
        method: its policy and engine.
        prompts: B questions.
        sampling: K, limits and temperature; answers are sampled at its temperature, too.
        seed: of the draws.
    """
    policy, count = method.policy, sampling.group_size
    with policy.evaluating():
        traces = generate(method.engine, policy, trace_request(policy, prompts, sampling, seed))
        repeated = repeat(prompts, count)  # B * K questions
        ids, mask = after_marker(repeated, traces, policy.markup)
        limits = answer_limits(repeated)  # [B * K]
        request = GenerationRequest(
            ids, mask, int(limits.max()), stop_ids=policy.eos_ids, stop_text=policy.markup.end_text,
            temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k, seed=seed + 1, logprobs=True,
            names=[f"{name}\n{number}" for name in names_of(prompts) for number in range(count)],
        )  # fmt: skip
        answers = within(generate(method.engine, policy, request), limits)
        right = right_answers(policy, repeated, answers)  # [B * K]
    assert answers.logprobs is not None
    texts = decode_answers(policy, answers.token_ids, answers.token_mask)
    chances = answers.logprobs.where(answers.token_mask, 0).sum(dim=1).exp()  # [B * K]
    most, shares, good = [], [], []
    for start in range(0, len(texts), count):
        group = texts[start : start + count]
        answer, votes = Counter(group).most_common(1)[0]
        most.append(answer)
        shares.append(votes / count)
        good.append(any(bool(right[start + at]) for at, text in enumerate(group) if text == answer))
    device = prompts.prompt_ids.device
    agreement, correct = torch.tensor(shares, device=device), torch.tensor(good, dtype=torch.bool, device=device)
    return Assessment(most, agreement, chances.view(-1, count).mean(dim=1), correct)
