"""Log-probabilities and entropy from hidden states, in chunks of positions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nrt_lightning.functional.precision import at_least_float32
from nrt_lightning.functional.products import add_product, product, rounded_product

CHUNK = 512  # positions; fewer read the head more often than they compute. 256 MiB of logits for 128k tokens
IN_CACHE = 2**19  # logits that a CPU handles at a time: passes over 2 MiB take half as long as over 16
BLOCK = 2**26  # weights of a 16-bit head that are handled in float32 at a time: 256 MiB


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
    four), so that peak memory does not grow with M; with `keep` the probabilities are stored instead. Logits are in
    float32 and gradients are summed over positions in float32 also for 16-bit weights: a block of tokens of the
    vocabulary at a time.

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
    with torch.autocast(hidden.device.type, enabled=False):
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
        head = weight if weight.is_cuda or rows < len(weight) else at_least_float32(weight)  # once for all chunks
        for h, i in chunks(hidden, ids, chunk):
            logits = chunk_logits(h, head, bias, row, index, rows)
            found += [statistics(part, j, keep=keep) for part, j in chunks(logits, i, rows_in_cache(logits))]
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


def block_rows(weight: Tensor) -> int:
    """Tokens of the vocabulary that are handled at a time: all of float32 weights, `BLOCK` weights of 16 bits."""
    return len(weight) if weight.dtype in (torch.float32, torch.float64) else max(1, BLOCK // weight.shape[1])


def own_column(row: Tensor | None, index: int, start: int, rows: int) -> int | None:
    """Number of the separate row in a block that begins at `start`; None if it is not in the block."""
    return index - start if row is not None and 0 <= index - start < rows else None


def chunks(one: Tensor, other: Tensor, rows: int) -> list[tuple[Tensor, Tensor]]:
    """Split two tensors into chunks of so many rows; one empty chunk if there are none."""
    return list(zip(one.split(rows), other.split(rows), strict=True))


def chunk_logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, row: Tensor | None, index: int, rows: int
) -> Tensor:
    """Logits `[c, V]` in at least float32, in new memory."""
    if rows >= len(weight):
        return block_logits(hidden, weight, bias, row, None if row is None else index)
    logits = hidden.new_empty(len(hidden), len(weight), dtype=torch.promote_types(weight.dtype, torch.float32))
    for start in range(0, len(weight), rows):
        part = slice(start, start + rows)
        own = own_column(row, index, start, rows)
        logits[:, part] = block_logits(hidden, weight[part], None if bias is None else bias[part], row, own)
    return logits


def block_logits(hidden: Tensor, part: Tensor, bias: Tensor | None, row: Tensor | None, own: int | None) -> Tensor:
    """Logits `[c, v]` of a block of the vocabulary in at least float32, in new memory."""
    logits = product(hidden, part.T)
    if row is not None and own is not None:
        logits[:, own] = product(hidden, row.unsqueeze(1)).squeeze(1)
    return logits if bias is None else logits.add_(bias)


def rows_in_cache(logits: Tensor) -> int:
    """Rows of logits that are handled at a time: all on other devices, and all of tensors without data, as in plans."""
    whole = logits.device.type != "cpu" or type(logits) is not Tensor
    return len(logits) if whole else max(1, IN_CACHE // logits.shape[1])


def probabilities_(logits: Tensor, log_normalizer: Tensor) -> Tensor:
    """Probabilities `[c, v]` in the memory of the logits."""
    for part, own in chunks(logits, log_normalizer, rows_in_cache(logits)):
        part.sub_(own.unsqueeze(-1)).exp_()
    return logits


def statistics(logits: Tensor, ids: Tensor, *, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs, entropies and log-normalizers `[c]`; overwrites `logits` `[c, V]`, with probabilities if `keep`."""
    largest = logits.amax(dim=-1, keepdim=True)
    shifted = logits.sub_(largest)
    odds = shifted.exp()  # [c, V]
    total = odds.sum(dim=-1)
    log_total = total.log()
    chosen = shifted.gather(-1, ids.unsqueeze(-1)).squeeze(-1) - log_total
    finite = shifted.clamp_(min=torch.finfo(logits.dtype).min)  # 0 * -inf would be NaN
    entropies = log_total - finite.mul_(odds).sum(dim=-1) / total
    if keep:
        torch.div(odds, total.unsqueeze(-1), out=logits)
    return chosen, entropies, log_total + largest.squeeze(-1)
