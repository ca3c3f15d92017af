"""Sampling of traces with the answer in the prompt, beside those under the question alone."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from nrt_lightning.errors import InputError
from nrt_lightning.functional.padding import pad_to_widest
from nrt_lightning.metrics.scalars import Mean, Scalar
from nrt_lightning.models.policy.policy import Policy
from nrt_lightning.rollouts import Generations
from nrt_lightning.rollouts.engine import GenerationRequest
from nrt_lightning.structures import Conditioning, Prompts, Rollouts, Segments
from nrt_lightning.training.conditioned import AnswerConditioned


@dataclasses.dataclass
class Mixture:
    """A request whose groups see two prompts: the question, and the question with the answer."""

    request: GenerationRequest
    order: Tensor  # [N] the request's row of each trace: of each group first those under the question
    conditioning: Conditioning  # of the window, before the traces are known


def mixed(
    settings: AnswerConditioned, policy: Policy, prompts: Prompts, request: GenerationRequest, share: float
) -> Mixture:
    """The request with a share of each group's traces drawn with the answer in the prompt.

    Every prompt is processed once, for all its traces. Traces under the question are those of the same number without
    a share.

    Args:
        settings: of the method.
        policy: with the tokenizer.
        prompts: B questions with their answers.
        request: for the traces under the question.
        share: of each group.
    """
    if len(prompts.rows) != len(prompts):
        raise InputError(
            f"answer_conditioned puts answers into prompts, and the batch has texts of {len(prompts.rows)} of "
            f"{len(prompts)} rows. Give Prompts.rows, as QADataModule and PromptEncoder do."
        )
    names, size, device = request.names or [], request.group_size, request.prompt_ids.device
    seen = settings.counts(share, size, names, request.seed)  # [B]
    ids, mask = settings.prompts(policy, prompts.rows, request.seed, device)  # [B, P']
    all_ids = torch.cat(pad_to_widest([request.prompt_ids, ids], left=True))  # [2 B, P]
    all_masks = torch.cat(pad_to_widest([request.prompt_mask, mask], left=True))
    counts = [size - count for count in seen] + seen
    asked = [index for index, count in enumerate(counts) if count]
    changed = dataclasses.replace(
        request,
        prompt_ids=all_ids[asked],
        prompt_mask=all_masks[asked],
        names=[(names + [f"{name}\nwith its answer" for name in names])[index] for index in asked],
        counts=[counts[index] for index in asked],
    )
    first = torch.tensor(counts).cumsum(dim=0) - torch.tensor(counts)  # [2 B]
    order: list[int] = []
    drawn: list[bool] = []
    for group, count in enumerate(seen):
        for prompt in (group, group + len(seen)):
            order += range(int(first[prompt]), int(first[prompt]) + counts[prompt])
        drawn += [False] * (size - count) + [True] * count
    flags = torch.tensor(drawn, device=device)  # [N]
    fraction = torch.tensor(seen, dtype=torch.float32, device=device).repeat_interleave(size) / size  # [N]
    none = torch.zeros_like(flags)
    conditioning = Conditioning(flags, fraction, none, torch.zeros_like(fraction), none.clone(), ids, mask)
    return Mixture(changed, torch.tensor(order, device=device), conditioning)


def guard(settings: AnswerConditioned, policy: Policy, prompts: Prompts, traces: Generations, of: Conditioning) -> None:
    """Measure how much of each trace is copied from the answer, and refuse copies if the guard does."""
    size = len(traces) // max(len(prompts), 1)
    ends = {*policy.eos_ids, *policy.markup.end_ids}
    answers = [
        bare(ids[mask].tolist(), policy, ends)
        for ids, mask in zip(prompts.answer_ids, prompts.answer_mask, strict=True)
    ]
    lengths, rows, leaks = traces.lengths.tolist(), traces.token_ids.tolist(), settings.leak_guard
    written = [row[:length] for row, length in zip(rows, lengths, strict=True)]
    device = of.drawn.device
    copied = [leaks.copied(trace, answers[n // size]) for n, trace in enumerate(written)]
    of.copied = torch.tensor(copied, dtype=torch.float32, device=device)
    of.contains = torch.tensor(
        [leaks.contains(trace, answers[n // size]) for n, trace in enumerate(written)], device=device
    )
    if leaks.refuse:
        of.refused = of.drawn & (of.copied >= leaks.limit)


def bare(ids: list[int], policy: Policy, ends: set[int]) -> list[int]:
    """The tokens of an answer without white space around it and without its end."""
    special = [token for token in ids if token in ends or not policy.tokenizer.decode([token]).strip()]
    while ids and ids[0] in special:
        ids = ids[1:]
    while ids and ids[-1] in special:
        ids = ids[:-1]
    return ids


@torch.no_grad()
def score_with_answers(policy: Policy, rollouts: Rollouts) -> None:
    """Store the log-probs of the traces after the prompts that show the answer."""
    of, segments = rollouts.conditioning, rollouts.segments
    assert of is not None
    traces = Segments(
        segments.trace_mask, segments.marker_mask, torch.zeros_like(segments.answer_mask), segments.marker_emitted
    )
    after = dataclasses.replace(
        rollouts,
        prompt_ids=of.prompt_ids,
        prompt_mask=of.prompt_mask,
        segments=traces,
        old_scores=None,
        credit=None,
        conditioning=None,
    )
    of.logprobs = policy.score(after).logprobs


def conditioning_metrics(of: Conditioning | None, rewards: Tensor, limit: float) -> dict[str, Scalar]:
    """Share, copies and rewards of the traces that saw the answer, beside those of the others.

    Args:
        of: of N traces; None if the share is 0, and copies were not looked for.
        rewards: `[N]` trace rewards.
        limit: of the leak guard.
    """
    known = rewards.isfinite()
    none = torch.zeros_like(known)
    seen, contains, refused = (none, none, none) if of is None else (of.drawn, of.contains, of.refused)
    copied = none.float() if of is None else of.copied
    own, copies = ~seen, copied >= limit
    return {
        "conditioned_share": Mean.of(seen),
        "conditioned_reward": Mean.of(rewards, seen & known),
        "own_reward": Mean.of(rewards, own & known),
        "conditioned_copies": Mean.of(copies, seen),
        "own_copies": Mean.of(copies, own),
        "conditioned_copied_share": Mean.of(copied, seen),
        "conditioned_contains_answer": Mean.of(contains, seen),
        "own_contains_answer": Mean.of(contains, own),
        "conditioned_refused": Mean.of(refused, seen),
    }
