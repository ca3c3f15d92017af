"""Answers that the policy writes and is trained on: whether it finishes them, and whether they differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from nrt_lightning.structures import Prompts, Rollouts


class WrittenAnswer(NamedTuple):
    """The ids of the policy's answer to a question and of the reference answer."""

    own: tuple[int, ...]  # empty where the policy did not write the marker: the response ends with its trace
    reference: tuple[int, ...]


def first_answers(batch: Prompts) -> list[WrittenAnswer]:
    """The first answer of each group; nothing where the policy's answers are not trained."""
    rollouts, own = batch.sampled, batch.sampled.policy_answers
    if batch.responses is None or own is None:
        return []
    prompts = torch.arange(len(rollouts.prompt_ids), device=rollouts.group_ids.device)  # [B]
    firsts = torch.searchsorted(rollouts.group_ids, prompts)  # [B]
    written = own.mask & rollouts.segments.marker_emitted.unsqueeze(1)  # [N, W]
    return [
        WrittenAnswer(
            tuple(own.ids[row][written[row]].tolist()),
            tuple(rollouts.answer_ids[prompt][rollouts.answer_mask[prompt]].tolist()),
        )
        for prompt, row in enumerate(firsts.tolist())
    ]


def finished_rate(rollouts: Rollouts) -> float:
    """The fraction of responses that the policy finished itself, by the marker and the end of the answer."""
    assert rollouts.policy_answers is not None
    return float((rollouts.segments.marker_emitted & rollouts.policy_answers.ended).float().mean())


def variety(answers: Sequence[WrittenAnswer]) -> float:
    """Different answers divided by different reference answers, at most 1; 1 if the reference answers are all the same.

    >>> variety([WrittenAnswer((5,), (1,)), WrittenAnswer((5,), (2,)), WrittenAnswer((5,), (3,))])
    0.3333333333333333
    """
    references = {answer.reference for answer in answers}
    if len(references) < 2:
        return 1.0
    return min(1.0, len({answer.own for answer in answers}) / len(references))
