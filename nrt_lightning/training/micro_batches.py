"""Micro-batching by token budget; gradients equal those of the full batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.losses import WholeBatch
from nrt_lightning.strategies import Processes
from nrt_lightning.structures import Credit, LossOutput, Prompts, Rollouts, Scores, Segments, TraceReward
from nrt_lightning.training.accumulation import Weigh, plain, with_value
from nrt_lightning.training.method import Method


@dataclass
class Part:
    """Some groups of a batch."""

    batch: Prompts  # with padding cut to what its rollouts need
    prompts: Tensor  # [b] of the whole batch, ascending
    rows: Tensor  # [n] their rollouts


@dataclass
class Step:
    """What a training step computes from its rollouts."""

    loss: Tensor  # with the gradient that is not taken yet
    scores: Scores
    credit: Credit
    out: LossOutput


def pack(tokens: list[int], limit: int, at_least: int = 1) -> list[list[int]]:
    """Pack groups of similar length into the fewest parts of at most `limit` tokens, and no fewer than `at_least`.

    A group is never divided; one of more than `limit` tokens is a part by itself.

    Args:
        tokens: of each group.
        limit: tokens of a part.
        at_least: number of parts, at most one a group.

    Returns:
        The indices of the groups of each part.

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
        index, half = parts.index(largest), len(largest) - len(largest) // 2
        parts[index : index + 1] = [largest[:half], largest[half:]]
    return parts


def tokens_of_groups(rollouts: Rollouts) -> list[int]:
    """Tokens of each group that go through the model: its prompt once, its completions, and the answer once more."""
    prompts = rollouts.prompt_mask.sum(dim=1) + rollouts.answer_mask.sum(dim=1)  # [B]
    completions = rollouts.segments.completion_mask.sum(dim=1)  # [N]
    return prompts.index_add(0, rollouts.group_ids, completions).tolist()


def split(batch: Prompts, limit: int, processes: Processes) -> list[Part]:
    """Split a batch into parts of at most `limit` tokens.

    All processes make as many parts: where weights are sharded, they go through a forward pass together.
    """
    tokens = tokens_of_groups(batch.trained)
    packed = pack(tokens, limit, processes.largest(len(pack(tokens, limit))))
    return [part_of(batch, groups) for groups in packed]


def part_of(batch: Prompts, groups: list[int]) -> Part:
    """These groups of the batch."""
    ids = batch.trained.group_ids
    prompts = torch.tensor(sorted(groups), device=ids.device)  # [b]
    return Part(batch.select(prompts), prompts, torch.isin(ids, prompts).nonzero().squeeze(1))


def learn_at_once(method: Method, batch: Prompts, processes: Processes, weigh: Weigh = plain) -> Step:
    """Scores, credit and loss of all rollouts by one forward pass.

    Args:
        method: that is learned with.
        batch: with rollouts.
        processes: that learn together.
        weigh: from a loss to the scalar whose gradient is taken.
    """
    scores = method.score(batch)
    credit = method.assign_credit(batch, scores)
    out = method.compute_loss(batch, scores, credit, mean=processes.mean)
    return Step(with_value(weigh(out), out.loss), scores, credit, out)


def learn_in_parts(
    method: Method,
    batch: Prompts,
    parts: list[Part],
    processes: Processes,
    backward: Callable[[Tensor], None],
    weigh: Weigh = plain,
) -> Step:
    """`learn_at_once` with the activations of one part in memory at a time.

    If the loss of a group depends on the log-probs of other groups, these are computed in an extra forward pass.

    Args:
        method: that is learned with.
        batch: with rollouts.
        parts: of the batch.
        processes: that learn together.
        backward: takes the gradient of a part; called for all parts but the last, which is left to the caller.
        weigh: from a loss to the scalar whose gradient is taken.
    """
    if batch.trained.old_scores is not None and method.loss.needs_full_batch:
        return learn_in_two_passes(method, batch, parts, processes, backward, weigh)
    whole = loss_segments(method, batch)
    scores, credits = [], []
    for number, part in enumerate(parts, start=1):
        scores.append(method.score(part.batch))
        credits.append(method.assign_credit(part.batch, scores[-1]))
        out = method.compute_loss(part.batch, scores[-1], credits[-1], WholeBatch(whole, part.rows), processes.mean)
        loss = weigh(out)
        if number < len(parts):
            backward(loss)
        scores[-1] = scores[-1].apply(Tensor.detach)
    merged = merge_scores(parts, batch, scores)
    return whole_step(method, batch, loss, merged, merge_credits(parts, batch, credits), processes)


def learn_in_two_passes(
    method: Method,
    batch: Prompts,
    parts: list[Part],
    processes: Processes,
    backward: Callable[[Tensor], None],
    weigh: Weigh,
) -> Step:
    """The gradient of the loss in the log-probs of all rollouts first, then in the weights, part by part."""
    with torch.no_grad():
        scores = merge_scores(parts, batch, [method.score(part.batch) for part in parts])
    leaves = [scores.logprobs, scores.entropy][: 2 if method.loss.entropy_bonus else 1]
    for leaf in leaves:
        leaf.requires_grad_()
    credit = method.assign_credit(batch, scores)
    total = method.compute_loss(batch, scores, credit, mean=processes.mean)
    gradients = {
        name: torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
        for name, value in total.parts.items()
    }  # [N, C] each
    for number, part in enumerate(parts, start=1):
        again = method.score_trained(part.batch.trained)
        found = [again.logprobs, again.entropy][: len(leaves)]  # [n, c] each
        terms = {name: through(found, full, part.rows) for name, full in gradients.items()}
        loss = weigh(LossOutput(torch.stack([*terms.values()]).sum(), {}, parts=terms, sizes=total.sizes))
        if number < len(parts):
            backward(loss)
    return whole_step(method, batch, loss, scores, credit, processes)


def through(values: list[Tensor], gradients: Sequence[Tensor | None], rows: Tensor) -> Tensor:
    """A scalar with these gradients [N, C] in the values [n, c] of some rows."""
    pairs = [(value, full) for value, full in zip(values, gradients, strict=True) if full is not None]
    return torch.stack([(value * full[rows, : value.shape[1]]).sum() for value, full in pairs]).sum()


def loss_segments(method: Method, batch: Prompts) -> Segments:
    """The tokens of the whole batch that carry a loss, known before its rewards are."""
    trained = batch.trained
    rows = method.loss_rows(trained) if trained.credit is None else trained.credit.loss_rows
    return trained.segments.only(rows)


@torch.no_grad()
def whole_step(
    method: Method, batch: Prompts, last: Tensor, scores: Scores, credit: Credit, processes: Processes
) -> Step:
    """The step of the whole batch: its loss has the value of all parts and the gradient of the last."""
    scores = scores.apply(Tensor.detach)
    out = method.compute_loss(batch, scores, credit, mean=processes.mean)
    with torch.enable_grad():
        return Step(with_value(last, out.loss), scores, credit, out)


def merge_scores(parts: list[Part], batch: Prompts, scores: list[Scores]) -> Scores:
    """The scores of all parts in the rows of the batch."""
    rows, prompts = [part.rows for part in parts], [part.prompts for part in parts]
    width, answer = batch.trained.completion_ids.shape[1], batch.trained.answer_ids.shape[1]
    return Scores(
        logprobs=merged(rows, [s.logprobs for s in scores], width),
        entropy=merged(rows, [s.entropy for s in scores], width),
        baseline_logprobs=merged_or_none(prompts, [s.baseline_logprobs for s in scores], answer),
        ref_logprobs=merged_or_none(rows, [s.ref_logprobs for s in scores], width),
    )


def merge_credits(parts: list[Part], batch: Prompts, credits: list[Credit]) -> Credit:
    """The credit of all parts in the rows of the batch."""
    if batch.trained.credit is not None:
        return batch.trained.credit
    rows, rewards = [part.rows for part in parts], [credit.reward for credit in credits]
    width, answer = batch.trained.completion_ids.shape[1], batch.trained.answer_ids.shape[1]
    advantages = [credit.advantages for credit in credits]
    reward = TraceReward(
        value=merged(rows, [reward.value for reward in rewards]),
        token_weights=merged(rows, [reward.token_weights for reward in rewards], answer),
        signals={name: merged(rows, [reward.signals[name] for reward in rewards]) for name in rewards[0].signals},
        baseline=merged_or_none(rows, [reward.baseline for reward in rewards]),
    )
    return Credit(
        reward=reward,
        advantages=merged(rows, advantages, width if advantages[0].dim() == 2 else None),
        token_weights=merged(rows, [credit.token_weights for credit in credits], width),
        loss_rows=merged_or_none(rows, [credit.loss_rows for credit in credits]),
    )


def merged(rows: list[Tensor], values: list[Tensor], width: int | None = None) -> Tensor:
    """The values of all parts in the rows of one tensor, [N] or [N, width]."""
    count = sum(len(r) for r in rows)
    out = values[0].new_zeros(count if width is None else (count, width))
    for mine, value in zip(rows, values, strict=True):
        if width is None:
            out[mine] = value
        else:
            out[mine, : value.shape[1]] = value
    return out


def merged_or_none(rows: list[Tensor], values: list[Tensor | None], width: int | None = None) -> Tensor | None:
    """`merged`; None where the parts have none."""
    present = [value for value in values if value is not None]
    return merged(rows, present, width) if present else None
