"""Policies that have solved register programs or ignore them, made in seconds by fine-tuning on worked traces."""

from __future__ import annotations

from functools import cache

import torch
from tiny import make_prompts

from nrt_lightning import Policy, RegisterPrograms
from nrt_lightning.rollouts import Generations, assemble
from nrt_lightning.structures import Prompts, Rollouts, Row
from nrt_lightning.tasks.registers import worked_trace


def worked_rollouts(policy: Policy, prompts: Prompts, worked: list[Row]) -> Rollouts:
    """One completion for each prompt: the trace that works out a row of `worked`, the marker, the prompt's answer."""
    ids = [policy.tokenizer(worked_trace(row.question), add_special_tokens=False)["input_ids"] for row in worked]
    width = max(map(len, ids)) + 1
    tokens = torch.tensor([[*row, policy.markup.marker_ids[0]] + [0] * (width - 1 - len(row)) for row in ids])
    mask = torch.arange(width) <= torch.tensor([[len(row)] for row in ids])
    return assemble(prompts, Generations(tokens, mask, torch.ones(len(ids), dtype=torch.bool)), policy.markup)


def taught_policy(others: bool = False) -> Policy:
    """The embedded base after some steps on worked traces: it has solved the task.

    With `others` each trace is that of another row: the policy writes traces of every kind that ignore their prompt.
    """
    policy = Policy("embedded:registers-base").load()
    policy.load_state_dict(taught_weights(others))
    return policy


@cache
def taught_weights(others: bool, steps: int = 60, size: int = 32) -> dict[str, torch.Tensor]:
    """Made once."""
    policy = Policy("embedded:registers-base").load()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.01)
    rows = RegisterPrograms("train", steps * size).rows()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        batch = rows[step * size : (step + 1) * size]
        prompts = make_prompts(policy, [row.question for row in batch], [row.answer for row in batch])
        rollouts = worked_rollouts(policy, prompts, batch[1:] + batch[:1] if others else batch)
        loss = -policy.score(rollouts).logprobs[rollouts.segments.completion_mask].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return policy.state_dict()
