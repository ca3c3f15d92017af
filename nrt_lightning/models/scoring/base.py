"""Scoring forwards: log-probs of rollouts, with the output head at the needed positions only."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from typing_extensions import override

from nrt_lightning.errors import InputError
from nrt_lightning.functional.linear_logprobs import CHUNK, OwnRow, linear_logprobs
from nrt_lightning.functional.logprobs import entropy, token_logprobs
from nrt_lightning.models.scoring.entropies import ENTROPY_GRADIENT
from nrt_lightning.models.scoring.frequencies import check_frequencies
from nrt_lightning.models.scoring.recurrence import padded_right, recurrent
from nrt_lightning.structures import Rollouts, Scores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from transformers import PreTrainedModel

DENSE = 2**24  # logits whose probabilities are kept for the backward pass: 64 MiB in float32
FINAL: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # by model: `logits_are_final`


class ScoringForward(ABC):
    """A forward pass that scores rollouts."""

    def refusal(self, model: PreTrainedModel, length: int) -> str | None:
        """The reason why a model cannot be scored this way at this sequence length, or None if it can."""
        return None

    def check(self, model: PreTrainedModel, length: int) -> None:
        """Raise `InputError` if there is a `refusal`."""
        if reason := self.refusal(model, length):
            name = type(self).__name__
            raise InputError(f"policy.scoring {name} cannot be used: {reason}. Set it to PromptCopies or null.")

    def choose(self, model: PreTrainedModel, length: int) -> ScoringForward:
        """The scoring forward that is used for a model and a sequence length: this one."""
        return self

    @abstractmethod
    def __call__(self, model: PreTrainedModel, rollouts: Rollouts, *, baseline: bool = False) -> Scores:
        """Scores of all completion tokens and, if `baseline`, of the answers after the empty trace."""


@dataclass(frozen=True)
class PromptCopies(ScoringForward):
    """Puts a copy of the prompt before every completion: works with any causal language model."""

    @override
    def __call__(self, model: PreTrainedModel, rollouts: Rollouts, *, baseline: bool = False) -> Scores:
        scores = self._score(model, rollouts)
        if baseline:
            empty = rollouts.empty_traces()
            with torch.no_grad():
                scores.baseline_logprobs = self._score(model, empty).logprobs[:, rollouts.direct_answers]  # [B, T]
        return scores

    def _score(self, model: PreTrainedModel, rollouts: Rollouts) -> Scores:
        check_frequencies(model, rollouts)
        wanted = rollouts.segments.completion_mask  # [N, C]
        before, inputs = copies(rollouts, right=recurrent(model))
        targets, scales = rollouts.completion_ids[wanted], at(rollouts.scales, wanted)  # [M]
        logprobs, entropies = score_positions(model, before, targets, inputs, scales)  # [M]
        return scatter_scores(logprobs, entropies, wanted)


def at(values: Tensor | None, mask: Tensor) -> Tensor | None:
    """The values where the mask is True, [M], if there are values."""
    return None if values is None else values[mask]


def copies(rollouts: Rollouts, *, right: bool = False) -> tuple[Tensor, dict[str, Any]]:
    """The positions [N, P + C] that predict completion tokens, and the model's inputs, each with its prompt.

    Args:
        rollouts: N completions.
        right: move all padding to the right, where no state of a causal model can see it.
    """
    prompts, wanted = rollouts.group_ids, rollouts.segments.completion_mask  # [N], [N, C]
    ids = torch.cat([rollouts.prompt_ids[prompts], rollouts.completion_ids], dim=1)  # [N, P + C]
    mask = torch.cat([rollouts.prompt_mask[prompts], wanted], dim=1)  # [N, P + C]
    before = torch.zeros_like(mask)
    before[:, rollouts.prompt_ids.shape[1] - 1 : -1] = wanted  # the position before a token predicts it
    if right:
        order = padded_right(mask)
        predicted = torch.cat([torch.zeros_like(rollouts.prompt_mask[prompts]), wanted], dim=1).gather(1, order)
        ids, mask, before = ids.gather(1, order), mask.gather(1, order), predicted.roll(-1, dims=1)
    inputs = {"input_ids": ids, "attention_mask": mask.long(), "position_ids": positions(mask), "use_cache": False}
    return before, inputs


def positions(mask: Tensor) -> Tensor:
    """Position ids that count real tokens only, 0 at leading padding. [N, S] -> [N, S]"""
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What `scaled_dot_product_attention` makes of a boolean mask in every call: 0 where it is True, else -inf."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)


@dataclass(frozen=True)
class HeadSettings:
    """Memory settings of a model's output head."""

    keep: bool | None = None  # keep probabilities for the backward pass; None: if they are at most `DENSE`
    chunk: int = CHUNK  # positions at a time
    rows: int | None = None  # tokens of the vocabulary at a time; None: `block_rows`


HEADS: WeakKeyDictionary[nn.Module, HeadSettings] = WeakKeyDictionary()  # models that do not use the defaults


def score_positions(
    model: PreTrainedModel,
    where: Tensor | tuple[Tensor, Tensor],
    targets: Tensor,
    inputs: dict[str, Any],
    scales: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probs of tokens and entropies of their distributions, with the head at the predicting positions only.

    Above `DENSE` logits, the backward pass recomputes them.

    Args:
        model: the model to run.
        where: the predicting positions, as a mask [N, S] with M True, or as rows and columns [M].
        targets: the predicted tokens [M], in the mask's row-major order.
        inputs: of the model's forward.
        scales: the logits of each token are multiplied by them, [M]; None for 1.

    Returns:
        Log-probs [M] with gradient and entropies [M], with one inside `entropy_gradient`.
    """
    head, with_gradient = model.get_output_embeddings(), ENTROPY_GRADIENT.get()
    if logits_are_final(model, head) and (scales is None or head_layer(head).bias is None):

        def logprobs_and_entropies(hidden: Tensor) -> Tensor:  # [N, S, H] -> [1, M, 2]
            linear, row = linear_head(head)  # read here: sharded weights are whole during the forward pass
            settings = HEADS.get(model, HeadSettings())
            keep = len(targets) * linear.out_features <= DENSE if settings.keep is None else settings.keep
            predicting = hidden[where]  # [M, H]; scaled, they give scaled logits
            if scales is not None:
                predicting = predicting * scales.to(predicting.dtype).unsqueeze(-1)
            pair = linear_logprobs(
                predicting, linear.weight, targets, linear.bias, chunk=settings.chunk, keep=keep,
                rows=settings.rows, own=row, entropy_gradient=with_gradient,
            )  # fmt: skip
            return torch.stack(pair, dim=-1).unsqueeze(0)

        with head_forward(head, logprobs_and_entropies):
            pair = model(**accepted(model, inputs)).logits[0]  # [M, 2]
        return pair[:, 0], pair[:, 1] if with_gradient else pair[:, 1].detach()
    with head_forward(head, lambda hidden: type(head).forward(head, hidden[where].unsqueeze(0))):
        logits = model(**accepted(model, inputs)).logits[0]  # [M, V]
    if scales is not None:
        logits = logits.float() * scales.unsqueeze(-1)
    return token_logprobs(logits, targets), entropy(logits if with_gradient else logits.detach())


def last_logits(model: PreTrainedModel, inputs: dict[str, Any]) -> Tensor:
    """Logits after the last position, with the head at that position only. [B, V]

    With `logits_to_keep` transformers gives the head a strided slice `[B, 1, H]` of the hidden states. If the head is
    frozen, torch 2.13 multiplies it by batched products, on CPUs up to 250 times slower in bfloat16. Here the head gets
    a matrix `[B, H]`.
    """
    head = model.get_output_embeddings()
    product = head.forward
    with head_forward(head, lambda hidden: product(hidden[:, -1].contiguous()).unsqueeze(1)):
        return model(**accepted(model, inputs | {"logits_to_keep": 1})).logits[:, -1]


def linear_head(head: Any) -> tuple[nn.Linear, OwnRow | None]:
    """The output head's linear layer, and the marker's row if an adapter trains it."""
    rows = getattr(head, "token_adapter", None)
    return head_layer(head), None if rows is None else rows.trained_row()


def head_layer(head: Any) -> Any:
    """The output head without an adapter's wrapper."""
    rows = getattr(head, "token_adapter", None)
    return head if rows is None else rows.base_layer


def logits_are_final(model: PreTrainedModel, head: nn.Module) -> bool:
    """True if the model returns its linear head's output unchanged, without soft cap or scale. Tried once per model."""
    if model not in FINAL:
        ids = torch.zeros(1, 1, dtype=torch.long, device=model.device)
        probe = torch.full((1, 1, 2), 3.0, device=ids.device)
        gpus = [ids.device] if ids.device.type == "cuda" else []
        # Forked because dropout samples: a resumed run tries its model once more than an uninterrupted one.
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
    """A context in which the output head computes `forward` of the hidden states [N, S, H]."""
    before = {name: value for name, value in vars(head).items() if name == "forward"}  # of a copy, while sampling
    head.forward = forward
    try:
        yield
    finally:
        del head.forward
        vars(head).update(before)


def accepted(model: PreTrainedModel, inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs that the model's forward accepts: some models have no `position_ids`."""
    names = argument_names(getattr(model, "_fsdp_wrapped_module", model).forward)
    return inputs if names is None else {name: value for name, value in inputs.items() if name in names}


def argument_names(forward: Callable[..., Any]) -> frozenset[str] | None:
    """Names of the arguments of a forward method; None if it takes any."""
    return names_of(getattr(forward, "__func__", forward))


@lru_cache(maxsize=64)
def names_of(function: Callable[..., Any]) -> frozenset[str] | None:
    """Names of the arguments of a function; None if it takes any. Inspected once: decoding asks for every token."""
    parameters = inspect.signature(function).parameters
    any_name = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return None if any_name else frozenset(parameters)


def scatter_scores(logprobs: Tensor, entropies: Tensor, mask: Tensor) -> Scores:
    """Scores from values [M] at the M True positions of `mask` [N, C], 0 elsewhere."""
    empty = torch.zeros(mask.shape, dtype=logprobs.dtype, device=mask.device)
    return Scores(logprobs=empty.masked_scatter(mask, logprobs), entropy=empty.masked_scatter(mask, entropies))
