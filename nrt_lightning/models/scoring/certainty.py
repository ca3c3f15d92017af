"""Self-certainty: the distance of next-token distributions from uniform."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nrt_lightning.functional import at_least_float32
from nrt_lightning.models.scoring.base import accepted, copies, head_forward
from nrt_lightning.models.scoring.frequencies import check_frequencies
from nrt_lightning.models.scoring.recurrence import recurrent
from nrt_lightning.structures import Rollouts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROWS = 4  # completions at a time, to bound the memory of their logits


@torch.no_grad()
def token_certainty(model: PreTrainedModel, rollouts: Rollouts) -> Tensor:
    """`KL(U || pi)` for the distribution of each completion token, U uniform over the vocabulary. No gradient.

    Args:
        model: the model to run.
        rollouts: N completions.

    Returns:
        `[N, C]` in nats, 0 at padding.
    """
    wanted = rollouts.segments.completion_mask  # [N, C]
    check_frequencies(model, rollouts)
    before, inputs = copies(rollouts, right=recurrent(model))  # [N, P + C]
    head = model.get_output_embeddings()
    parts = []
    for rows in torch.arange(len(rollouts), device=wanted.device).split(ROWS):
        some = {name: value if isinstance(value, bool) else value[rows] for name, value in inputs.items()}
        where = before[rows]

        def of_completions(hidden: Tensor, where: Tensor = where) -> Tensor:  # [n, S, H] -> [1, M, V]
            return type(head).forward(head, hidden[where].unsqueeze(0))

        with head_forward(head, of_completions):
            logits = at_least_float32(model(**accepted(model, some)).logits[0])  # [M, V]
        parts.append(logits.logsumexp(dim=-1) - logits.mean(dim=-1) - math.log(logits.shape[-1]))
    values = torch.cat(parts)
    return torch.zeros(wanted.shape, dtype=values.dtype, device=wanted.device).masked_scatter(wanted, values)
