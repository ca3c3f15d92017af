"""Logits of an output head in float32, block by block of the vocabulary, and what a chunk of them gives."""

from __future__ import annotations

import torch
from torch import Tensor

from nrt_lightning.functional.precision import at_least_float32
from nrt_lightning.functional.products import product

IN_CACHE = 2**19  # logits that a CPU handles at a time: passes over 2 MiB take half as long as over 16
BLOCK = 2**26  # weights of a 16-bit head that are handled in float32 at a time: 256 MiB


def block_rows(weight: Tensor) -> int:
    """Tokens of the vocabulary that are handled at a time: all of float32 weights, `BLOCK` weights of 16 bits."""
    return len(weight) if weight.dtype in (torch.float32, torch.float64) else max(1, BLOCK // weight.shape[1])


def for_all_chunks(weight: Tensor, rows: int) -> Tensor:
    """The weight of a head for products with many chunks of positions: in at least float32 already, if it is one block.

    GPUs multiply 16-bit operands into float32.
    """
    return weight if weight.is_cuda or rows < len(weight) else at_least_float32(weight)


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


def statistics(logits: Tensor, ids: Tensor, probs: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs, entropies and log-normalizers `[c]`. Overwrites the logits.

    Args:
        logits: `[c, V]`.
        ids: `[c]`, the tokens.
        probs: `[c, V]`, for the probabilities; may be the logits' memory.
    """
    largest = logits.amax(dim=-1, keepdim=True)
    shifted = logits.sub_(largest)
    odds = shifted.exp()  # [c, V]
    total = odds.sum(dim=-1)
    log_total = total.log()
    chosen = shifted.gather(-1, ids.unsqueeze(-1)).squeeze(-1) - log_total
    finite = shifted.clamp_(min=torch.finfo(logits.dtype).min)  # 0 * -inf would be NaN
    entropies = log_total - finite.mul_(odds).sum(dim=-1) / total
    if probs is not None:
        torch.div(odds, total.unsqueeze(-1), out=probs)
    return chosen, entropies, log_total + largest.squeeze(-1)
