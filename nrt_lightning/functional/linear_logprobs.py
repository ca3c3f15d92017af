"""Log-probs and entropy straight from hidden states, a few positions at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 128  # positions at a time: 64 MiB of float32 logits at a vocabulary of 128k


@dataclass
class OwnRow:
    """A row of the head that is a tensor of its own, trained while the weight around it is frozen."""

    index: int  # of the token whose row it is
    value: Tensor  # [H]


def linear_logprobs(
    hidden: Tensor,
    weight: Tensor,
    ids: Tensor,
    bias: Tensor | None = None,
    chunk: int = CHUNK,
    keep: bool = False,
    own: OwnRow | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probs of tokens, and the entropy of their distributions, under the logits `hidden @ weight.T + bias`.

    The same values and gradients as through dense logits, faster for fewer passes over them. The logits never exist all
    at once: the backward pass computes them again, chunk by chunk, and one matrix product in four is the price of a
    peak that does not grow with the number of positions. With `keep` the probabilities wait for it instead.

    Args:
        hidden: `[M, H]`.
        weight: of the output head, `[V, H]`.
        ids: the tokens, `[M]`.
        bias: of the output head, `[V]`.
        chunk: positions at a time.
        keep: hold the probabilities `[M, V]` for the backward pass.
        own: in place of that row of the weight, which is left as it is.

    Returns:
        Log-probs `[M]` in nats, with gradient, and entropies `[M]` in nats, without; float32 or float64.

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
    return LinearLogprobs.apply(hidden, weight, ids, bias, row, index, chunk, keep)


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
        keep: bool,
    ) -> tuple[Tensor, Tensor]:
        """Chunks of logits, of which three numbers a position are kept, and the probabilities if asked."""
        found, probs = [], []
        for h, i in chunks(hidden, ids, chunk):
            *numbers, p = statistics(chunk_logits(h, weight, bias, row, index), i)
            found.append(numbers)
            probs += [p] if keep and any(ctx.needs_input_grad) else []
        logprobs, entropies, log_normalizer = (torch.cat(part) for part in zip(*found, strict=True))
        ctx.save_for_backward(hidden, weight, ids, bias, row, log_normalizer, *probs)
        ctx.chunk, ctx.index = chunk, index
        ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """`d logprob / d logits = onehot(id) - softmax(logits)`, chunk by chunk."""
        hidden, weight, ids, bias, row, log_normalizer, *kept = ctx.saved_tensors
        want_hidden, want_weight, _, want_bias, want_row, *_ = ctx.needs_input_grad
        grad_hidden = torch.empty_like(hidden) if want_hidden else None
        grad_weight = torch.zeros_like(weight) if want_weight else None
        grad_bias = torch.zeros_like(bias) if want_bias else None
        grad_row = torch.zeros_like(row) if want_row else None
        for start in range(0, len(ids), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            h, grad = hidden[part], grads[0][part].unsqueeze(-1)  # [c, H], [c, 1]
            if kept:
                slope = kept[start // ctx.chunk] * -grad  # [c, V]
            else:
                logits = chunk_logits(h, weight, bias, row, ctx.index)  # [c, V]
                slope = logits.sub_(log_normalizer[part].unsqueeze(-1)).exp_().mul_(-grad)
            slope = slope.scatter_add_(-1, ids[part].unsqueeze(-1), grad).to(weight.dtype)
            if grad_bias is not None:
                grad_bias += slope.sum(dim=0)
            through_row = None if row is None else slope[:, ctx.index].clone()  # [c]
            if through_row is not None:
                slope[:, ctx.index] = 0  # the weight's own row is not used
            if grad_hidden is not None:
                grad_hidden[part] = slope @ weight
                if through_row is not None:
                    grad_hidden[part] += torch.outer(through_row, row)
            if grad_weight is not None:
                grad_weight.addmm_(slope.T, h)
            if grad_row is not None and through_row is not None:
                grad_row += through_row @ h
        return grad_hidden, grad_weight, None, grad_bias, grad_row, None, None, None


def chunks(hidden: Tensor, ids: Tensor, chunk: int) -> list[tuple[Tensor, Tensor]]:
    """Hidden states and tokens, `chunk` positions at a time; one empty chunk where there are none."""
    return list(zip(hidden.split(chunk), ids.split(chunk), strict=True))


def chunk_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, row: Tensor | None, index: int) -> Tensor:
    """Logits in at least float32, a tensor of their own that may be overwritten. [c, V]"""
    logits = F.linear(hidden, weight, bias)
    if row is not None:
        logits[:, index] = hidden @ row if bias is None else hidden @ row + bias[index]
    return logits if logits.dtype == torch.float64 else logits.float()


def statistics(logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probs of the tokens, entropies and log-normalizers [c], and probabilities [c, V]; `logits` is overwritten."""
    log_normalizer = logits.logsumexp(dim=-1)
    logprobs = logits.sub_(log_normalizer.unsqueeze(-1))  # [c, V]
    chosen = logprobs.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    probs = logprobs.exp()
    finite = logprobs.clamp_(min=torch.finfo(logits.dtype).min)  # 0 * inf is 0
    return chosen, -torch.einsum("cv,cv->c", probs, finite), log_normalizer, probs
