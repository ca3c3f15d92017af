"""The policy's own answers after some traces of a training batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nrt_lightning.callbacks.on_policy_rollout import OnPolicyRollout
from nrt_lightning.evaluation.evaluate import right_answers
from nrt_lightning.models.policy.texts import decode_answers
from nrt_lightning.rollouts import GenerationRequest, Generations
from nrt_lightning.rollouts.answering import answer_limits, within
from nrt_lightning.rollouts.sampled_tokens import generate
from nrt_lightning.structures import Prompts


@dataclass
class OwnAnswer:
    """What the policy answers after a trace."""

    text: str | None
    right: bool | None
    note: str = ""  # why there is no text


def own_answers(trainer: Any, module: Any, batch: Prompts, rows: Sequence[int]) -> list[OwnAnswer]:
    """The answers after the traces of some rows: those that were sampled or, where none were, greedy ones of now.

    Where another process or thread uses the weights, none are written, and the notes say so.

    Args:
        trainer: of the run.
        module: with a method.
        batch: with rollouts.
        rows: of the rollouts.
    """
    rollouts, policy, engine = batch.sampled, module.policy, module.method.engine
    index = rollouts.group_ids[list(rows)]  # [n] the prompt of each row
    if rollouts.policy_answers is not None:
        own = rollouts.policy_answers
        answers = Generations(own.ids[list(rows)], own.mask[list(rows)], own.ended[list(rows)])
    elif (reason := in_use(trainer, policy, engine)) is not None:
        return [OwnAnswer(None, None, f"not written: {reason}") for _ in rows]
    else:
        with trainer.precision_plugin.forward_context(), policy.evaluating():
            answers = greedy_answers(policy, engine, batch, rows)
    prompts = dataclasses.replace(batch, rollouts=None, responses=None).apply(lambda tensor: tensor[index])
    prompts.rows = [batch.rows[number] for number in index.tolist()]
    right = right_answers(policy, prompts, answers).tolist()
    texts = decode_answers(policy, answers.token_ids, answers.token_mask)
    return [OwnAnswer(text, bool(good)) for text, good in zip(texts, right, strict=True)]


def in_use(trainer: Any, policy: Any, engine: Any) -> str | None:
    """Why rank zero cannot decode by itself; None if it can."""
    if policy.sharding.active:
        return "the weights are sharded over processes"
    if engine.own_weights:
        return f"{type(engine).__name__} has weights of its own"
    if any(isinstance(callback, OnPolicyRollout) and callback.older_traces for callback in trainer.callbacks):
        return "the next window is sampled at the same time"
    return None


def greedy_answers(policy: Any, engine: Any, batch: Prompts, rows: Sequence[int]) -> Generations:
    """Greedy answers after prompt, trace and marker of each row, each within its own limit."""
    rollouts = batch.sampled
    segments, texts = rollouts.segments, []
    for row in rows:
        prompt = int(rollouts.group_ids[row])
        before = segments.trace_mask[row] | segments.marker_mask[row]
        texts.append(
            torch.cat([batch.prompt_ids[prompt][batch.prompt_mask[prompt]], rollouts.completion_ids[row][before]])
        )
    width = max(len(ids) for ids in texts)
    ids = torch.stack([torch.cat([ids.new_zeros(width - len(ids)), ids]) for ids in texts])  # [n, P + L + M]
    mask = torch.stack([torch.arange(width, device=ids.device) >= width - len(text) for text in texts])
    limits = answer_limits(batch)[rollouts.group_ids[list(rows)]]  # [n]
    request = GenerationRequest(
        ids, mask, int(limits.max()), stop_ids=policy.eos_ids, temperature=0.0, stop_text=policy.markup.end_text
    )
    return within(generate(engine, policy, request), limits)
