"""Log-probs under a frozen output head: one pass gives them and their gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nrt_lightning.functional.logits import chunk_logits, chunks, for_all_chunks, rows_in_cache, statistics
from nrt_lightning.functional.products import rounded_product


class FrozenLinearLogprobs(torch.autograd.Function):
    """`LinearLogprobs` for a weight and a bias without gradient.

    The gradient of a log-prob with respect to its hidden state, `(onehot(id) - p) @ weight`, does not depend on what
    comes after it but for a factor. So the forward pass computes it from the logits at hand, and the backward pass
    needs no logits.
    """

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
    ) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies; stores the gradients of the log-probs."""
        head = for_all_chunks(weight, rows)
        found, through_hidden, through_row = [], [], []
        narrow = weight.dtype in (torch.bfloat16, torch.float16)
        memory = weight.new_empty(min(chunk, len(hidden)), len(weight) if narrow else 0)  # for the slopes of all chunks
        for h, i in chunks(hidden, ids, chunk):
            logits = chunk_logits(h, head, bias, row, index, rows)  # [c, V]
            slope = memory[: len(h)] if narrow else logits  # [c, V]
            own_logit = None if row is None else logits[:, index].clone()  # [c]
            size = rows_in_cache(logits)
            parts = [statistics(*x) for x in zip(logits.split(size), i.split(size), slope.split(size), strict=True)]
            logprobs, entropies, log_normalizer = (torch.cat(part) for part in zip(*parts, strict=True))  # [c] each
            found.append((logprobs, entropies))
            # p - 1 at the token, exact also where p is almost 1.
            slope[torch.arange(len(i), device=i.device), i] = logprobs.expm1().to(slope.dtype)
            if own_logit is not None:
                slope[:, index] = 0  # the row of the weight is not used
                through_row.append(torch.where(i == index, logprobs.expm1(), (own_logit - log_normalizer).exp()))  # [c]
            gradient = rounded_product(slope, weight)  # [c, H]
            through_hidden.append(gradient if row is None else gradient + through_row[-1].unsqueeze(-1) * row)
            del logits, slope  # before the next chunk's are made
        of_row = [] if row is None else [hidden, row, torch.cat(through_row)]
        ctx.save_for_backward(torch.cat(through_hidden), *of_row)
        ctx.dtype = hidden.dtype
        logprobs, entropies = (torch.cat(part) for part in zip(*found, strict=True))
        ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """`d logprob / d logits = onehot(id) - p`."""
        through_hidden, *of_row = ctx.saved_tensors
        upstream = -grads[0].unsqueeze(-1)  # [M, 1]
        grad_hidden, grad_row = (through_hidden * upstream).to(ctx.dtype), None
        if of_row:
            hidden, row, own = of_row
            grad_row = (own.unsqueeze(-1) * upstream * hidden).sum(dim=0).to(row.dtype)
        return grad_hidden, None, None, None, grad_row, None, None, None
