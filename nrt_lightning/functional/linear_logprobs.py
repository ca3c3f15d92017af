"""Log-probabilities and entropy from hidden states, in chunks of positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

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
    own: OwnRow | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute log-probs and entropies under the logits `hidden @ weight.T + bias`, chunk by chunk.

    Values and gradients equal those from dense logits. The backward pass recomputes the logits (one matrix product in
    four), so that peak memory does not grow with M; with `keep` the probabilities are stored instead.

    Args:
        hidden: `[M, H]`, one row per position.
        weight: `[V, H]` of the output head.
        ids: `[M]`, the tokens.
        bias: `[V]` of the output head.
        chunk: number of positions computed at once.
        keep: store the probabilities `[M, V]` for the backward pass.
        own: replaces one row of `weight`.

    Returns:
        Log-probs `[M]` with gradient and entropies `[M]` without, in nats, float32 or float64.

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
        """Log-probs and entropies; stores log-normalizers for the backward pass, and probabilities if `keep`."""
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
                slope[:, ctx.index] = 0  # the row of the weight is not used
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
    """Split hidden states and tokens into chunks; one empty chunk if there are no positions."""
    return list(zip(hidden.split(chunk), ids.split(chunk), strict=True))


def chunk_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, row: Tensor | None, index: int) -> Tensor:
    """Logits `[c, V]` in at least float32, in new memory."""
    logits = F.linear(hidden, weight, bias)
    if row is not None:
        logits[:, index] = hidden @ row if bias is None else hidden @ row + bias[index]
    return logits if logits.dtype == torch.float64 else logits.float()


def statistics(logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probs, entropies, log-normalizers `[c]` and probabilities `[c, V]`; overwrites `logits`."""
    log_normalizer = logits.logsumexp(dim=-1)
    logprobs = logits.sub_(log_normalizer.unsqueeze(-1))  # [c, V]
    chosen = logprobs.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    probs = logprobs.exp()
    finite = logprobs.clamp_(min=torch.finfo(logits.dtype).min)  # 0 * -inf would be NaN
    return chosen, -torch.einsum("cv,cv->c", probs, finite), log_normalizer, probs
