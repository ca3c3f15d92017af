"""Batches too large for the memory: a part of the groups at a time, with the gradient of the whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from nrt_lightning.losses import WholeBatch
from nrt_lightning.structures import Judgement, LossOutput, Rollouts, Scores, TraceReward


@dataclass
class Part:
    """Some groups of a batch."""

    rows: Tensor  # [n] their rollouts
    prompts: Tensor  # [b] their prompts, ascending
    rollouts: Rollouts  # only as wide as they need


@dataclass
class Step:
    """What a training step finds out about its rollouts."""

    loss: Tensor  # with the gradient that is still to be taken
    scores: Scores
    judgement: Judgement
    out: LossOutput


class Learner(Protocol):
    """What learns from rollouts: the stages of a training step of `NRTModule`."""

    policy: Any

    def score(self, rollouts: Rollouts) -> Scores:
        """Log-probs with gradient."""

    def judge(self, rollouts: Rollouts, scores: Scores) -> Judgement:
        """Rewards and advantages."""

    def loss_of(
        self, rollouts: Rollouts, scores: Scores, judgement: Judgement, whole: WholeBatch | None = None
    ) -> LossOutput:
        """The loss, with gradient into the log-probs."""

    def couples_groups(self, rollouts: Rollouts) -> bool:
        """Whether the loss of a group depends on the log-probs of other groups."""

    def backward_part(self, loss: Tensor) -> None:
        """Take the gradient of a part now."""


def pack(tokens: list[int], limit: int, at_least: int = 1) -> list[list[int]]:
    """Groups of like length together, in as few parts as hold at most `limit` tokens each, but `at_least` so many.

    A group is never divided; one of more than `limit` tokens is a part of its own.

    Args:
        tokens: of each group.
        limit: of a part.
        at_least: parts, at most one a group.

    Example:
        >>> pack([40, 10, 90, 15], limit=70)
        [[1, 3, 0], [2]]
        >>> pack([40, 10, 90, 15], limit=1000, at_least=3)
        [[1, 3], [0], [2]]
    """
    parts: list[list[int]] = []
    for group in sorted(range(len(tokens)), key=lambda g: tokens[g]):
        if parts and sum(tokens[g] for g in parts[-1]) + tokens[group] <= limit:
            parts[-1].append(group)
        else:
            parts.append([group])
    while len(parts) < min(at_least, len(tokens)):
        largest = max((part for part in parts if len(part) > 1), key=lambda part: sum(tokens[g] for g in part))
        place, half = parts.index(largest), len(largest) - len(largest) // 2
        parts[place : place + 1] = [largest[:half], largest[half:]]
    return parts


def tokens_of_groups(rollouts: Rollouts) -> list[int]:
    """Tokens of each group that go through the model: its prompt once, its completions, and the answer once more."""
    prompts = rollouts.prompt_mask.sum(dim=1) + rollouts.answer_mask.sum(dim=1)  # [B]
    completions = rollouts.segments.completion_mask.sum(dim=1)  # [N]
    return prompts.index_add(0, rollouts.group_ids, completions).tolist()


def split(rollouts: Rollouts, limit: int, largest: Callable[[int], int]) -> list[Part]:
    """The batch in parts of at most `limit` tokens.

    Args:
        rollouts: of the batch.
        limit: tokens of a part.
        largest: the largest of a number on all processes. Each takes as many parts: where weights are sharded, a
            forward pass is one of all of them.
    """
    tokens = tokens_of_groups(rollouts)
    packed = pack(tokens, limit, largest(len(pack(tokens, limit))))
    return [part(rollouts, groups) for groups in packed]


def part(rollouts: Rollouts, groups: list[int]) -> Part:
    """These groups of the batch."""
    prompts = torch.tensor(sorted(groups), device=rollouts.group_ids.device)
    rows = torch.isin(rollouts.group_ids, prompts).nonzero().squeeze(1)
    return Part(rows, prompts, rollouts.select(prompts, rows))


def learn_at_once(module: Learner, rollouts: Rollouts) -> Step:
    """Score, judge and weigh all rollouts in one forward pass."""
    scores = module.score(rollouts)
    judgement = module.judge(rollouts, scores)
    out = module.loss_of(rollouts, scores, judgement)
    return Step(out.loss, scores, judgement, out)


def learn_in_parts(module: Learner, rollouts: Rollouts, parts: list[Part]) -> Step:
    """As `learn_at_once`, with the activations of one part in memory at a time; all but the last have their backward
    pass here.

    Where a rollout's loss depends on the log-probs of other groups, these are found in a forward pass of their own.
    """
    if module.couples_groups(rollouts):
        return learn_in_two_passes(module, rollouts, parts)
    scores, judgements = [], []
    for number, each in enumerate(parts, start=1):
        scores.append(module.score(each.rollouts))
        judgements.append(module.judge(each.rollouts, scores[-1]))
        out = module.loss_of(each.rollouts, scores[-1], judgements[-1], WholeBatch(rollouts.loss_segments, each.rows))
        if number < len(parts):
            module.backward_part(out.loss)
        scores[-1] = scores[-1].apply(Tensor.detach)
    return finished(module, rollouts, out.loss, join_scores(parts, rollouts, scores), join(parts, rollouts, judgements))


def learn_in_two_passes(module: Learner, rollouts: Rollouts, parts: list[Part]) -> Step:
    """The slope of the loss at the log-probs of all rollouts first, then its gradient part by part."""
    with torch.no_grad():
        scores = join_scores(parts, rollouts, [module.score(each.rollouts) for each in parts])
    leaf = scores.logprobs.requires_grad_()
    judgement = module.judge(rollouts, scores)
    (slope,) = torch.autograd.grad(module.loss_of(rollouts, scores, judgement).loss, leaf)  # [N, C]
    for number, each in enumerate(parts, start=1):
        logprobs = module.policy.score(each.rollouts).logprobs  # [n, c]
        loss = (logprobs * slope[each.rows, : logprobs.shape[1]]).sum()
        if number < len(parts):
            module.backward_part(loss)
    return finished(module, rollouts, loss, scores, judgement)


@torch.no_grad()
def finished(module: Learner, rollouts: Rollouts, last: Tensor, scores: Scores, judgement: Judgement) -> Step:
    """The step of the whole batch: its loss has the value of all parts and the gradient of the last."""
    scores = scores.apply(Tensor.detach)
    out = module.loss_of(rollouts, scores, judgement)
    with torch.enable_grad():
        loss = last + (out.loss - last).detach()
    return Step(loss, scores, judgement, out)


def join_scores(parts: list[Part], rollouts: Rollouts, scores: list[Scores]) -> Scores:
    """The scores of all rollouts."""
    rows, prompts = [each.rows for each in parts], [each.prompts for each in parts]
    width, answer = rollouts.completion_ids.shape[1], rollouts.answer_ids.shape[1]
    return Scores(
        logprobs=joined(rows, [s.logprobs for s in scores], width),
        entropy=joined(rows, [s.entropy for s in scores], width),
        baseline_logprobs=joined_or_none(prompts, [s.baseline_logprobs for s in scores], answer),
        ref_logprobs=joined_or_none(rows, [s.ref_logprobs for s in scores], width),
    )


def join(parts: list[Part], rollouts: Rollouts, judgements: list[Judgement]) -> Judgement:
    """The judgement of all rollouts."""
    rows = [each.rows for each in parts]
    width, answer = rollouts.completion_ids.shape[1], rollouts.answer_ids.shape[1]
    names = judgements[0].reward.signals
    return Judgement(
        old_logprobs=joined(rows, [j.old_logprobs for j in judgements], width),
        reward=TraceReward(
            value=joined(rows, [j.reward.value for j in judgements]),
            token_weights=joined(rows, [j.reward.token_weights for j in judgements], answer),
            signals={name: joined(rows, [j.reward.signals[name] for j in judgements]) for name in names},
        ),
        baseline=joined_or_none(rows, [j.baseline for j in judgements]),
        advantages=joined(rows, [j.advantages for j in judgements]),
        token_weights=joined(rows, [j.token_weights for j in judgements], width),
    )


def joined(rows: list[Tensor], values: list[Tensor], width: int | None = None) -> Tensor:
    """The values of all parts in the rows of one tensor, [N] or [N, width]."""
    count = sum(len(r) for r in rows)
    out = values[0].new_zeros(count if width is None else (count, width))
    for mine, value in zip(rows, values, strict=True):
        if width is None:
            out[mine] = value
        else:
            out[mine, : value.shape[1]] = value
    return out


def joined_or_none(rows: list[Tensor], values: list[Tensor | None], width: int | None = None) -> Tensor | None:
    """As `joined`; None where there are none."""
    present = [value for value in values if value is not None]
    return joined(rows, present, width) if present else None
