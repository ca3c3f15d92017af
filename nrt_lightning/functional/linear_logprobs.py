"""Log-probabilities and entropy from hidden states, in chunks of positions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nrt_lightning.functional.frozen_head import FrozenLinearLogprobs
from nrt_lightning.functional.logits import (
    block_logits,
    block_rows,
    chunk_logits,
    chunks,
    for_all_chunks,
    own_column,
    probabilities_,
    rows_in_cache,
    statistics,
)
from nrt_lightning.functional.products import add_product, product, rounded_product

CHUNK = 512  # positions; fewer read the head more often than they compute. 256 MiB of logits for 128k tokens


@dataclass
class OwnRow:
    """A row of the output head that is trained separately from the frozen weight."""

    index: int  # token id, the number of the row
    value: Tensor  # [H]


def linear_logprobs(
    hidden: Tensor,
    weight: Tensor,
    ids: Tensor,
    bias: Tensor | None = None,
    *,
    chunk: int = CHUNK,
    keep: bool = False,
    rows: int | None = None,
    own: OwnRow | None = None,
    entropy_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """Compute log-probs and entropies under the logits `hidden @ weight.T + bias`, chunk by chunk.

    Values and gradients equal those from dense logits. The backward pass recomputes the logits (one matrix product in
    four), so that peak memory does not grow with M; with `keep` the probabilities are stored instead. Under a frozen
    head it needs neither (`FrozenLinearLogprobs`). Logits are in float32 and gradients are summed over positions in
    float32 also for 16-bit weights: a block of tokens of the vocabulary at a time.

    Args:
        hidden: `[M, H]`, one row per position.
        weight: `[V, H]` of the output head.
        ids: `[M]`, the tokens.
        bias: `[V]` of the output head.
        chunk: number of positions computed at once.
        keep: store the probabilities `[M, V]` for the backward pass.
        rows: tokens of the vocabulary in a block; None for `block_rows`.
        own: replaces one row of `weight`.
        entropy_gradient: give the entropies a gradient, too.

    Returns:
        Log-probs `[M]` with gradient and entropies `[M]`, in nats, float32 or float64.

    Example:
        >>> hidden, weight, ids = torch.randn(5, 4), torch.randn(9, 4), torch.tensor([0, 3, 8, 3, 1])
        >>> logprobs, entropy = linear_logprobs(hidden, weight, ids, chunk=2)
        >>> torch.allclose(logprobs, (hidden @ weight.T).log_softmax(-1)[range(5), ids], atol=1e-6)
        True
    """
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight, bias = hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    index, row = (0, None) if own is None else (own.index, own.value.to(weight.dtype))
    rows = rows or block_rows(weight)
    frozen = not weight.requires_grad and (bias is None or not bias.requires_grad)
    trained = torch.is_grad_enabled() and (hidden.requires_grad or (row is not None and row.requires_grad))
    with torch.autocast(hidden.device.type, enabled=False):
        if frozen and trained and not entropy_gradient:
            return FrozenLinearLogprobs.apply(hidden, weight, ids, bias, row, index, chunk, rows)
        return LinearLogprobs.apply(hidden, weight, ids, bias, row, index, chunk, rows, keep, entropy_gradient)


class LinearLogprobs(torch.autograd.Function):
    """The autograd function behind `linear_logprobs`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        ids: Tensor,
        bias: Tensor | None,
        row: Tensor | None,
        index: int,
        chunk: int,
        rows: int,
        keep: bool,
        entropy_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies; stores log-normalizers for the backward pass, and probabilities if `keep`."""
        found, probs = [], []
        keep = keep and any(ctx.needs_input_grad)
        head = for_all_chunks(weight, rows)
        for h, i in chunks(hidden, ids, chunk):
            logits = chunk_logits(h, head, bias, row, index, rows)
            parts = chunks(logits, i, rows_in_cache(logits))
            found += [statistics(part, j, part if keep else None) for part, j in parts]
            probs += [logits] if keep else []
        logprobs, entropies, log_normalizer = (torch.cat(part) for part in zip(*found, strict=True))
        ctx.save_for_backward(hidden, weight, ids, bias, row, log_normalizer, entropies, *probs)
        ctx.chunk, ctx.rows, ctx.index, ctx.entropy_gradient = chunk, rows, index, entropy_gradient
        if not entropy_gradient:
            ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """`d logprob / d logits = onehot(id) - p`, `d entropy / d logits = -p (log p + entropy)`.

        Block by block of the vocabulary and chunk by chunk.
        """
        hidden, weight, _, bias, row, _, _, *kept = ctx.saved_tensors
        want_hidden, want_weight, _, want_bias, want_row, *_ = ctx.needs_input_grad
        exact = torch.promote_types(weight.dtype, torch.float32)
        grad_hidden = torch.zeros_like(hidden, dtype=exact) if want_hidden else None
        grad_weight = torch.zeros_like(weight) if want_weight else None
        grad_bias = torch.zeros_like(bias, dtype=exact) if want_bias else None
        grad_row = torch.zeros_like(row, dtype=exact) if want_row else None
        whole = ctx.rows >= len(weight)  # one block: a sum over it is rounded once
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, len(weight), ctx.rows):
                block = slice(start, start + ctx.rows)
                stored = weight[block]  # [v, H]
                # Converted once, and not for every chunk; kept probabilities of one block need no logits.
                part = stored if weight.is_cuda or (whole and kept) else stored.to(exact)  # [v, H]
                sums = None if grad_weight is None else grad_weight[block].to(exact)  # [v, H], 0
                own = own_column(row, ctx.index, start, len(part))
                for where, slope in slopes(ctx, grads, part, block, own):  # [c, v]
                    if grad_bias is not None:
                        grad_bias[block] += slope.sum(dim=0)
                    if own is not None and row is not None:
                        through_row = slope[:, own : own + 1].clone()  # [c, 1]
                        slope[:, own] = 0  # the row of the weight is not used
                        if grad_hidden is not None:
                            grad_hidden[where] += through_row * row
                        if grad_row is not None:
                            grad_row += (through_row * hidden[where]).sum(dim=0)
                    if grad_hidden is not None:
                        grad_hidden[where] += rounded_product(slope, stored) if whole else product(slope, part)
                    if sums is not None:
                        add_product(sums, slope.T, hidden[where])
                if grad_weight is not None and sums is not None and sums.dtype != grad_weight.dtype:
                    grad_weight[block] = sums  # otherwise they are a view of it
        grad_hidden = None if grad_hidden is None else grad_hidden.to(hidden.dtype)
        grad_row = None if grad_row is None else grad_row.to(weight.dtype)
        grad_bias = None if grad_bias is None else grad_bias.to(bias.dtype)
        return grad_hidden, grad_weight, None, grad_bias, grad_row, None, None, None, None, None


def slopes(
    ctx: Any, grads: tuple[Tensor, ...], part: Tensor, block: slice, own: int | None
) -> Iterator[tuple[slice, Tensor]]:
    """The gradient of the logits of a block of the vocabulary, chunk by chunk.

    Args:
        ctx: what `LinearLogprobs.forward` saved.
        grads: of the log-probs and the entropies, [M] each.
        part: the block's weights, [v, H].
        block: the block.
        own: number of the separate row in the block; None if it is in another.

    Yields:
        Positions and gradients [c, v].
    """
    hidden, _, ids, bias, row, log_normalizer, entropies, *kept = ctx.saved_tensors
    memory = kept[0].new_empty(len(kept[0]), len(part)) if kept else None  # new memory for every chunk takes longer
    for number, start in enumerate(range(0, len(ids), ctx.chunk)):
        where = slice(start, start + ctx.chunk)
        upstream = grads[0][where].unsqueeze(-1)  # [c, 1]
        if memory is not None:
            probs = kept[number][:, block]
            slope = torch.mul(probs, -upstream, out=memory[: len(probs)])
        else:
            logits = block_logits(hidden[where], part, None if bias is None else bias[block], row, own)
            probs = probabilities_(logits, log_normalizer[where])
            slope = probs * -upstream if ctx.entropy_gradient else probs.mul_(-upstream)
        if ctx.entropy_gradient:
            spread = torch.xlogy(probs, probs) + probs * entropies[where].unsqueeze(-1)  # [c, v]
            slope -= spread * grads[1][where].unsqueeze(-1)
        place = ids[where].unsqueeze(-1) - block.start  # [c, 1]
        inside = (place >= 0) & (place < len(part))
        yield where, slope.scatter_add_(-1, place.clamp(0, len(part) - 1), upstream * inside)
