"""Tokens of rows that are being sampled, and their end at a stop text."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nrt_lightning.rollouts.engine import GenerationRequest, Generations, Progress, RolloutEngine
from nrt_lightning.rollouts.joining import concat_groups
from nrt_lightning.rollouts.stop_text import Ending, StopText

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy


class SampledTokens:
    """Tokens of the rows that are being sampled.

    Args:
        request: with the stops.
        rows: number of rows N.
        tokenizer: of the policy, to find a stop text.
        unused: ids that are no tokens.
    """

    def __init__(self, request: GenerationRequest, rows: int, tokenizer: Any, unused: Sequence[int] = ()) -> None:
        device = request.prompt_ids.device
        shape = (rows, request.max_new_tokens)
        self.stop_ids = torch.tensor(request.stop_ids, dtype=torch.long, device=device)
        self.stop_text = None if request.stop_text is None else StopText(tokenizer, request.stop_text)
        self.banned_ids = torch.tensor([*request.banned_ids, *unused], dtype=torch.long, device=device)
        self.token_ids = torch.zeros(shape, dtype=torch.long, device=device)  # [N, L]
        self.token_mask = torch.zeros(shape, dtype=torch.bool, device=device)  # [N, L]
        self.logprobs = torch.zeros(shape, device=device) if request.logprobs else None  # [N, L]
        self.stopped = torch.zeros(rows, dtype=torch.bool, device=device)  # [N]

    def add(self, step: int, rows: Tensor, tokens: Tensor, logprobs: Tensor | None) -> Tensor:
        """Store the tokens of unfinished rows; return the tokens, 0 for finished rows. [A]"""
        unfinished = ~self.stopped[rows]
        tokens = tokens * unfinished
        self.token_ids[rows, step] = tokens
        self.token_mask[rows, step] = unfinished
        if self.logprobs is not None and logprobs is not None:
            self.logprobs[rows, step] = logprobs * unfinished
        self.stopped[rows] = ~unfinished | torch.isin(tokens, self.stop_ids)
        return tokens

    def look_for_text(self, rows: Tensor, start: int, stop: int) -> None:
        """Finish the rows in which the stop text is complete after one of the tokens from `start` to `stop`."""
        if self.stop_text is None:
            return
        new, candidate = self.token_ids[rows, start:stop].tolist(), self.stop_text.candidate
        ended = []
        for row, tokens in zip(rows.tolist(), new, strict=True):
            if any(candidate(token) for token in tokens):
                ids = self.token_ids[row, :stop][self.token_mask[row, :stop]].tolist()
                if self.stop_text.find(ids, start) is not None:
                    ended.append(row)
        self.stopped[ended] = True

    def generations(self) -> Generations:
        """All rows, cut to the longest."""
        width = int(self.token_mask.sum(dim=1).max()) if self.token_mask.numel() else 0
        found = Generations(
            token_ids=self.token_ids[:, :width],
            token_mask=self.token_mask[:, :width],
            stopped=self.stopped,
            logprobs=None if self.logprobs is None else self.logprobs[:, :width],
        )
        return found if self.stop_text is None else end_at(found, self.stop_text)


def end_at(generations: Generations, stop: StopText) -> Generations:
    """End every row where the stop text is first complete; what was sampled behind it is removed.

    Args:
        generations: rows that a stop token or the limit ended, without `ending` and `stop_width`.
        stop: the text.
    """
    device, mask = generations.token_ids.device, generations.token_mask
    counts, ids = mask.sum(dim=1).tolist(), generations.token_ids.tolist()
    found = [stop.find(row[:count]) for row, count in zip(ids, counts, strict=True)]
    places = [
        (count, 0, 0) if at is None else (at.length, at.width, at.ending)
        for at, count in zip(found, counts, strict=True)
    ]
    length, width, ending = torch.tensor(places, dtype=torch.long, device=device).view(-1, 3).unbind(dim=1)  # [N] each
    by_text = ending > Ending.LIMIT
    ending = torch.where(by_text, ending, generations.stopped.long() * Ending.TOKEN)
    kept = mask & (torch.arange(mask.shape[1], device=device) < length.unsqueeze(1))  # [N, L]
    longest = int(length.max()) if len(length) else 0
    return dataclasses.replace(
        generations,
        token_ids=(generations.token_ids * kept)[:, :longest],
        token_mask=kept[:, :longest],
        stopped=ending > Ending.LIMIT,
        logprobs=None if generations.logprobs is None else (generations.logprobs * kept)[:, :longest],
        ending=ending,
        stop_width=torch.where(by_text, width, generations.stopped.long()),
    )


def generate(
    engine: RolloutEngine, policy: Policy, request: GenerationRequest, progress: Progress | None = None
) -> Generations:
    """Continue the prompts of a request, by any engine: also by one that knows no stop text, or no `counts`.

    Args:
        engine: samples.
        policy: from whose weights.
        request: prompts and settings.
        progress: called as tokens are sampled.
    """
    if request.counts is not None and not engine.serves_counts:
        return by_count(engine, policy, request, progress)
    found = engine.generate(policy, request, progress)
    if request.stop_text is None or found.ending is not None:
        return found
    return end_at(found, StopText(policy.tokenizer, request.stop_text))


def by_count(
    engine: RolloutEngine, policy: Policy, request: GenerationRequest, progress: Progress | None = None
) -> Generations:
    """`generate` with a request for each number of continuations, for engines that continue all prompts as often."""
    counts, first = request.per_prompt, list(itertools.accumulate(request.per_prompt, initial=0))
    parts, rows = [], []
    for count in sorted(set(counts)):
        chosen = [index for index, other in enumerate(counts) if other == count]
        part = dataclasses.replace(
            request,
            prompt_ids=request.prompt_ids[chosen],
            prompt_mask=request.prompt_mask[chosen],
            names=None if request.names is None else [request.names[index] for index in chosen],
            group_size=count,
            counts=None,
        )
        parts.append(generate(engine, policy, part, progress))
        rows += [row for index in chosen for row in range(first[index], first[index] + count)]
    order = torch.tensor(rows, device=request.prompt_ids.device).argsort()
    return concat_groups(parts).take(order)
