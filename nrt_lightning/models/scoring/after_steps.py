"""Log-probs of the answer after each step of a trace, by one pass over prompt, trace and answers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from nrt_lightning.functional.padding import pad_rows
from nrt_lightning.models.scoring.base import last_logits, positions, score_positions
from nrt_lightning.models.scoring.shared_prompt import cache_refusal, repeated
from nrt_lightning.structures import Rollouts, Segments

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()
def answers_after_steps(policy: Any, rollouts: Rollouts, ends: list[list[int]]) -> list[list[float]]:
    """The log-prob of the reference answer after the first tokens of each trace and a forced marker.

    Prompt and trace are computed once for all steps of the trace, where the model's cache and attention allow it;
    otherwise every step is a completion of its own.

    Args:
        policy: a `Policy`, which scores.
        rollouts: N traces.
        ends: of each trace, the numbers of its first tokens; 0 for the empty trace.

    Returns:
        A sum over the answer's tokens for each of them, in nats.
    """
    model = policy.network
    longest = rollouts.length + max((len(each) for each in ends), default=0) * (
        len(rollouts.marker_ids) + rollouts.answer_ids.shape[1]
    )
    plain = model.config._attn_implementation not in ("sdpa", "eager") or cache_refusal(model, longest) is not None
    return by_copies(policy, rollouts, ends) if plain else by_branches(model, rollouts, ends)


def by_copies(policy: Any, rollouts: Rollouts, ends: list[list[int]]) -> list[list[float]]:
    """`answers_after_steps` with a completion for each step: the beginning of the trace, marker and answer."""
    device, ids, parts, groups = rollouts.completion_ids.device, [], [], []
    for row, cuts in enumerate(ends):
        answer = answer_of(rollouts, row)
        for end in cuts:
            begun = rollouts.completion_ids[row][rollouts.segments.trace_mask[row]].tolist()[:end]
            ids.append([*begun, *rollouts.marker_ids, *answer])
            parts.append([0] * end + [1] * len(rollouts.marker_ids) + [2] * len(answer))
            groups.append(int(rollouts.group_ids[row]))
    padded, known = pad_rows([torch.tensor(one, device=device) for one in ids])
    kind, _ = pad_rows([torch.tensor(one, device=device) for one in parts], value=-1)
    trace, marker, answers = ((kind == number) & known for number in range(3))
    flags = torch.zeros(len(ids), dtype=torch.bool, device=device)
    completions = dataclasses.replace(
        rollouts,
        completion_ids=padded,
        segments=Segments(trace, marker, answers, flags),
        group_ids=torch.tensor(groups, device=device),
        truncated=flags,
        old_scores=None,
        temperature=1.0,
        conditioning=None,
        credit=None,
    )
    logprobs = policy.score(completions).logprobs
    sums = iter(logprobs.where(answers, 0).double().sum(dim=1).tolist())
    return [[next(sums) for _ in cuts] for cuts in ends]


def answer_of(rollouts: Rollouts, row: int) -> list[int]:
    """The tokens of a row's reference answer."""
    prompt = rollouts.group_ids[row]
    return rollouts.answer_ids[prompt][rollouts.answer_mask[prompt]].tolist()


@dataclass
class Branches:
    """A trace, and behind it marker and answer for each of its steps. One row per trace."""

    ids: list[int]
    places: list[int]  # position of each token behind the prompt
    branch: list[int]  # 0 for the trace, else the number of the step
    limit: list[int]  # how many tokens of the trace each token sees
    before: list[int]  # columns that predict an answer's tokens
    targets: list[int]

    @classmethod
    def of(cls, rollouts: Rollouts, row: int, cuts: list[int]) -> Branches:
        """Those of one row."""
        trace = rollouts.completion_ids[row][rollouts.segments.trace_mask[row]].tolist()[: max(cuts, default=0)]
        answer, marker = answer_of(rollouts, row), list(rollouts.marker_ids)
        count = len(trace)
        new = cls(trace, list(range(count)), [0] * count, [n + 1 for n in range(count)], [], [])
        for number, end in enumerate(cuts, start=1):
            read = [*marker, *answer[:-1]]  # the last token predicts nothing
            new.before += [len(new.ids) + len(marker) - 1 + n for n in range(len(answer))]
            new.targets += answer
            new.ids += read
            new.places += range(end, end + len(read))
            new.branch += [number] * len(read)
            new.limit += [end] * len(read)
        return new


def by_branches(model: PreTrainedModel, rollouts: Rollouts, ends: list[list[int]]) -> list[list[float]]:
    """`answers_after_steps` by one pass over each prompt and one over each trace with all its answers."""
    cache = DynamicCache(config=model.config)
    prompt_mask, device = rollouts.prompt_mask, rollouts.prompt_ids.device  # [B, P]
    inputs = {
        "input_ids": rollouts.prompt_ids,
        "attention_mask": prompt_mask.long(),
        "position_ids": positions(prompt_mask),
        "past_key_values": cache,
        "use_cache": True,
    }
    last_logits(model, inputs)
    rows = [Branches.of(rollouts, row, cuts) for row, cuts in enumerate(ends)]

    def stacked(name: str, value: int = 0) -> Tensor:  # [N, S]
        lists = [torch.tensor(getattr(row, name), dtype=torch.long, device=device) for row in rows]
        return pad_rows(lists, value=value)[0]

    ids, branch, limit = stacked("ids"), stacked("branch", -1), stacked("limit")
    index = torch.arange(ids.shape[1], device=device)
    causal = index.unsqueeze(0) <= index.unsqueeze(1)  # [S, S] query, key
    of_trace = (branch.unsqueeze(1) == 0) & (index < limit.unsqueeze(2))  # [N, S, S]
    seen = causal & (of_trace | (branch.unsqueeze(1) == branch.unsqueeze(2)))
    start = prompt_mask[rollouts.group_ids]  # [N, P]
    mask = torch.cat([start.unsqueeze(1).expand(-1, ids.shape[1], -1), seen], dim=2).unsqueeze(1)  # [N, 1, S, P + S]
    if model.config._attn_implementation == "eager":
        low = torch.finfo(model.dtype).min
        mask = torch.zeros(mask.shape, dtype=model.dtype, device=device).masked_fill(~mask, low)
    where_row = [n for n, row in enumerate(rows) for _ in row.before]
    where = (
        torch.tensor(where_row, dtype=torch.long, device=device),
        torch.tensor([column for row in rows for column in row.before], dtype=torch.long, device=device),
    )
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": start.sum(dim=1, keepdim=True) + stacked("places"),
        "past_key_values": repeated(cache, rollouts.group_ids, model.config),
        "use_cache": True,
    }
    targets = torch.tensor([token for row in rows for token in row.targets], dtype=torch.long, device=device)
    logprobs = iter(score_positions(model, where, targets, inputs)[0].double().tolist())
    lengths = rollouts.answer_mask.sum(dim=1)[rollouts.group_ids].tolist()
    return [[sum(next(logprobs) for _ in range(lengths[n])) for _ in cuts] for n, cuts in enumerate(ends)]
