"""The scoring forward: from rollouts to log-probs, with the output head only where a log-prob is needed."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from nrt_lightning.functional.linear_logprobs import CHUNK, OwnRow, linear_logprobs
from nrt_lightning.functional.logprobs import entropy, token_logprobs
from nrt_lightning.structures import Rollouts, Scores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from transformers import PreTrainedModel

DENSE = 2**24  # logits whose probabilities are kept: 64 MiB in float32
FINAL: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # models, and whether their logits are their head's


class ScoringForward(ABC):
    """How a model is run over rollouts."""

    @abstractmethod
    def __call__(self, model: PreTrainedModel, rollouts: Rollouts, baseline: bool = False) -> Scores:
        """Scores of every completion token; of the answers after the empty trace too if `baseline`."""


@dataclass(frozen=True)
class PromptCopies(ScoringForward):
    """Every completion with a copy of its prompt before it: works with any causal language model."""

    def __call__(self, model: PreTrainedModel, rollouts: Rollouts, baseline: bool = False) -> Scores:
        """See `ScoringForward`."""
        scores = self._score(model, rollouts)
        if baseline:
            empty = rollouts.empty_traces()
            with torch.no_grad():
                scores.baseline_logprobs = self._score(model, empty).logprobs[:, 1:]  # [B, T] without the marker
        return scores

    def _score(self, model: PreTrainedModel, rollouts: Rollouts) -> Scores:
        wanted = rollouts.segments.completion_mask  # [N, C]
        before, inputs = copies(rollouts)
        logprobs, entropies = score_positions(model, before, rollouts.completion_ids[wanted], inputs)  # [M]
        return scatter_scores(logprobs, entropies, wanted)


def copies(rollouts: Rollouts) -> tuple[Tensor, dict[str, Any]]:
    """The positions [N, P + C] that predict the completions' tokens, and a model's inputs: each with its prompt."""
    prompts, wanted = rollouts.group_ids, rollouts.segments.completion_mask  # [N], [N, C]
    ids = torch.cat([rollouts.prompt_ids[prompts], rollouts.completion_ids], dim=1)  # [N, P + C]
    mask = torch.cat([rollouts.prompt_mask[prompts], wanted], dim=1)  # [N, P + C]
    before = torch.zeros_like(mask)
    before[:, rollouts.prompt_ids.shape[1] - 1 : -1] = wanted  # a token is predicted at the position before it
    inputs = {"input_ids": ids, "attention_mask": mask.long(), "position_ids": positions(mask), "use_cache": False}
    return before, inputs


def positions(mask: Tensor) -> Tensor:
    """Position ids that count real tokens only, 0 at padding before the first. [N, S] -> [N, S]"""
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)


@dataclass(frozen=True)
class HeadSettings:
    """Memory settings of a model's output head."""

    keep: bool | None = None  # keep probabilities for the backward pass; None: if they are at most `DENSE`
    chunk: int = CHUNK  # positions at a time


HEADS: WeakKeyDictionary[nn.Module, HeadSettings] = WeakKeyDictionary()  # models that do not use the defaults


def score_positions(
    model: PreTrainedModel, where: Tensor | tuple[Tensor, Tensor], targets: Tensor, inputs: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """Log-probs of tokens and entropies of their distributions, with the head at the positions that predict them only.

    Args:
        model: what is run.
        where: the positions, as a mask [N, S] with M True, or as rows and columns [M].
        targets: the token that each position predicts, in the mask's row-major order, [M].
        inputs: of the model's forward.

    Returns:
        Log-probs [M] with gradient and entropies [M] without. More than `DENSE` logits are not kept for the backward
        pass, which computes them again.
    """
    head = model.get_output_embeddings()
    if logits_are_final(model, head):

        def logprobs_and_entropies(hidden: Tensor) -> Tensor:  # [N, S, H] -> [1, M, 2]
            linear, own = linear_head(head)  # asked for here: where weights are sharded, they are whole while it runs
            settings = HEADS.get(model, HeadSettings())
            keep = len(targets) * linear.out_features <= DENSE if settings.keep is None else settings.keep
            pair = linear_logprobs(
                hidden[where], linear.weight, targets, linear.bias, chunk=settings.chunk, keep=keep, own=own
            )
            return torch.stack(pair, dim=-1).unsqueeze(0)

        with head_forward(head, logprobs_and_entropies):
            pair = model(**accepted(model, inputs)).logits[0]  # [M, 2]
        return pair[:, 0], pair[:, 1].detach()
    with head_forward(head, lambda hidden: type(head).forward(head, hidden[where].unsqueeze(0))):
        logits = model(**accepted(model, inputs)).logits[0]  # [M, V]
    return token_logprobs(logits, targets), entropy(logits.detach())


def linear_head(head: Any) -> tuple[nn.Linear, OwnRow | None]:
    """The output head's layer, and the marker's row where an adapter trains that row alone."""
    rows = getattr(head, "token_adapter", None)
    return head_layer(head), None if rows is None else rows.own_row()


def head_layer(head: Any) -> Any:
    """The output head without what an adapter has put around it."""
    rows = getattr(head, "token_adapter", None)
    return head if rows is None else rows.base_layer


def logits_are_final(model: PreTrainedModel, head: nn.Module) -> bool:
    """Whether the model gives out what its linear head computes, without a soft cap or a scale. Tried once."""
    if model not in FINAL:
        ids = torch.zeros(1, 1, dtype=torch.long, device=model.device)
        probe = torch.full((1, 1, 2), 3.0, device=ids.device)
        gpus = [ids.device] if ids.device.type == "cuda" else []
        # Dropout draws here, and a resumed run tries its model once more than the uninterrupted one.
        with (
            torch.random.fork_rng(gpus),
            torch.no_grad(),
            head_forward(head, lambda hidden: probe.to(hidden.dtype)),
        ):
            out = model(**accepted(model, {"input_ids": ids, "use_cache": False})).logits
        FINAL[model] = type(head_layer(head)) is nn.Linear and torch.equal(out.to(probe.dtype), probe)
    return FINAL[model]


@contextmanager
def head_forward(head: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside, the output head computes `forward` of the hidden states [N, S, H] instead."""
    head.forward = forward
    try:
        yield
    finally:
        del head.forward


def accepted(model: PreTrainedModel, inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs this model's forward takes: models without rotary positions may have no `position_ids`."""
    plain = getattr(model, "_fsdp_wrapped_module", model)
    parameters = inspect.signature(plain.forward).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return inputs
    return {name: value for name, value in inputs.items() if name in parameters}


def scatter_scores(logprobs: Tensor, entropies: Tensor, mask: Tensor) -> Scores:
    """Scores from values [M] of the M True positions of `mask` [N, C], 0 elsewhere."""
    empty = torch.zeros(mask.shape, dtype=logprobs.dtype, device=mask.device)
    return Scores(logprobs=empty.masked_scatter(mask, logprobs), entropy=empty.masked_scatter(mask, entropies))
