"""Whether a scoring forward is right for a model: tried once on a few tokens, against each sequence alone."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from nrt_lightning.errors import InputError
from nrt_lightning.functional.memory import raise_out_of_memory
from nrt_lightning.functional.modes import evaluating
from nrt_lightning.models.scoring.base import PromptCopies, ScoringForward, accepted
from nrt_lightning.models.scoring.layout import LEAST as LEAST_COMMON
from nrt_lightning.structures import Rollouts, Segments

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

LEAST = {torch.float32: 1e-4, torch.float64: 1e-6}  # nats
HALF = 0.1  # nats, in 16 bits, if the logits are small
COMMON = LEAST_COMMON + 1  # tokens that both prompts begin with: so many are read once
LENGTHS = {"prompts": (3, 5), "completions": (4, 6, 5, 3), "answers": (2, 1)}  # ragged: 2 prompts, 4 completions
LONGEST = COMMON + max(LENGTHS["prompts"]) + max(LENGTHS["completions"])
DIFFERENCES: WeakKeyDictionary[nn.Module, dict[type, float]] = WeakKeyDictionary()  # by scoring forward, nats
LOGITS: WeakKeyDictionary[nn.Module, Logits] = WeakKeyDictionary()  # by model


@dataclass(frozen=True)
class Logits:
    """Logits of a plain forward pass.

    Args:
        dtype: of the logits.
        largest: absolute value of the largest logit of a position.
    """

    dtype: torch.dtype
    largest: float


def is_right(model: PreTrainedModel, scoring: ScoringForward) -> bool:
    """True if a scoring forward gives the log-probs of plain forward passes of each sequence alone.

    The model is tried once, in eval mode and without random numbers. In half precision the bound is four times the
    difference of `PromptCopies`, which computes the same with another shape, or what rounding the logits explains.

    Args:
        model: with its weights.
        scoring: a scoring forward that does not refuse the model.

    Raises:
        InputError: not even `PromptCopies` is right, so the model cannot be trained.
    """
    known = DIFFERENCES.setdefault(model, {})
    if type(scoring) not in known:
        with evaluating(model):
            if PromptCopies not in known:
                check_causal(model)
                known[PromptCopies] = difference(model, PromptCopies())
            if type(scoring) not in known:
                try:
                    known[type(scoring)] = difference(model, scoring)
                except (TypeError, ValueError, RuntimeError, IndexError, AttributeError, KeyError) as error:
                    raise_out_of_memory(error)
                    known[type(scoring)] = float("inf")  # the model does not take such masks or caches
    found, copies = known[type(scoring)], known[PromptCopies]
    if not copies <= most_of(model):
        raise InputError(
            f"policy.model: {type(model).__name__} gives other log-probs in a padded batch than alone (they differ by "
            f"{copies:.2g} nats), so it can be neither scored nor trained. Choose another model."
        )
    return found <= max(least_of(model), 4 * copies)


def least_of(model: PreTrainedModel) -> float:
    """A difference that rounding alone makes, in nats: in 16 bits, four units in the last place of the largest logit.

    In bfloat16, that is 0.9 nats at a logit of 30. Under mixed precision, weights are in float32 and logits not.
    """
    known = LOGITS.get(model)
    dtypes = {model.dtype, known.dtype} if known else {model.dtype}
    units = [torch.finfo(dtype).eps for dtype in dtypes if dtype not in LEAST] + operand_units(model)
    if not units:
        return max(LEAST[dtype] for dtype in dtypes)
    return max(HALF, 4 * max(units) * (known.largest if known else 0.0))


def most_of(model: PreTrainedModel) -> float:
    """The largest difference of a model that is trained, in nats."""
    least = least_of(model)
    return 10 * least if least < HALF else max(10 * HALF, least)


def operand_units(model: PreTrainedModel) -> list[float]:
    """The last place of what torch may round the operands of float32 products to, by `set_float32_matmul_precision`."""
    backend = torch.backends.cuda if model.device.type == "cuda" else torch.backends.mkldnn
    unit = {"tf32": 2**-10, "bf16": 2**-7}.get(backend.matmul.fp32_precision)
    return [unit] if unit and model.dtype == torch.float32 else []


def check_causal(model: PreTrainedModel) -> None:
    """Check that tokens do not depend on later ones.

    Raises:
        InputError: they do, as in a model with an encoder's attention.
    """
    rollouts = few_rollouts(model)
    whole = alone(model, rollouts, 1)  # [c]
    half = len(whole) // 2
    rollouts.segments.trace_mask[1, half:] = False
    found = float((alone(model, rollouts, 1) - whole[:half]).abs().max())
    if not found <= most_of(model):
        raise InputError(
            f"policy.model: {type(model).__name__} reads later tokens (log-probs of a text's beginning change by "
            f"{found:.2g} nats with its end), so it cannot write. Choose a causal language model."
        )


def difference(model: PreTrainedModel, scoring: ScoringForward) -> float:
    """The largest difference of log-probs between a scoring forward and each sequence alone, in nats."""
    rollouts = few_rollouts(model, COMMON if takes(model, scoring, LONGEST) else 0)
    scores = scoring(model, rollouts, baseline=True)
    assert scores.baseline_logprobs is not None
    empty, found = rollouts.empty_traces(), 0.0
    for sequences, values in ((rollouts, scores.logprobs), (empty, scores.baseline_logprobs)):
        for row in range(len(sequences)):
            whole = alone(model, sequences, row)  # [c]
            own = whole[-int(sequences.answer_mask[row].sum()) :] if sequences is empty else whole
            found = max(found, float((values[row][: len(own)].float() - own).abs().max()))
    return found


def alone(model: PreTrainedModel, rollouts: Rollouts, row: int) -> Tensor:
    """Log-probs of a completion by a forward pass of its sequence alone, without padding and cache. [c]"""
    prompt = int(rollouts.group_ids[row])
    before = rollouts.prompt_ids[prompt][rollouts.prompt_mask[prompt]]
    after = rollouts.completion_ids[row][rollouts.segments.completion_mask[row]]
    logits = plain_logits(model, torch.cat([before, after]).unsqueeze(0))[0, len(before) - 1 : -1]
    return logits.float().log_softmax(-1).gather(-1, after.unsqueeze(1)).squeeze(1)


def plain_logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Logits of a forward pass without padding and cache, by which differences are judged. [n, S, V]"""
    logits: Tensor = model(**accepted(model, {"input_ids": ids, "use_cache": False})).logits
    if model not in LOGITS or LOGITS[model].dtype != logits.dtype:
        likely = logits.detach().amax(-1).nan_to_num(0.0, 0.0, 0.0)  # [n, S]: logits of other tokens may be -1e38
        LOGITS[model] = Logits(logits.dtype, float(likely.abs().max()))
    return logits


def some_tokens(model: PreTrainedModel, first: int, count: int) -> Tensor:
    """Tokens without meaning, which differ from those of another `first`. [count]"""
    vocabulary = model.config.get_text_config().vocab_size
    return (torch.arange(first, first + count, device=model.device) * 13 + 5) % vocabulary


def takes(model: PreTrainedModel, scoring: ScoringForward, length: int) -> bool:
    """True if sequences of this length can be scored."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or length
    return positions >= length and scoring.refusal(model, length) is None


def few_rollouts(model: PreTrainedModel, common: int = 0) -> Rollouts:
    """Two prompts, which begin with `common` equal tokens, and four completions, of different lengths."""
    device = model.device

    def ragged(lengths: tuple[int, ...], first: int, *, left: bool = False) -> tuple[Tensor, Tensor]:
        width = max(lengths)
        column, own = torch.arange(width, device=device), torch.tensor(lengths, device=device).unsqueeze(1)
        mask = column >= width - own if left else column < own  # [n, width]
        return some_tokens(model, first, mask.numel()).view_as(mask) * mask, mask

    prompts, prompt_mask = ragged(tuple(common + own for own in LENGTHS["prompts"]), 0, left=True)
    begin = some_tokens(model, 70, common)
    for ids, own in zip(prompts, LENGTHS["prompts"], strict=True):
        ids[-own - common : -own] = begin
    completions, mask = ragged(LENGTHS["completions"], 20)
    answers, answer_mask = ragged(LENGTHS["answers"], 50)
    none = torch.zeros_like(mask)
    return Rollouts(
        prompt_ids=prompts,
        prompt_mask=prompt_mask,
        answer_ids=answers,
        answer_mask=answer_mask,
        completion_ids=completions,
        segments=Segments(mask, none, none, marker_emitted=none[:, 0]),
        group_ids=torch.tensor([0, 0, 1, 1], device=device),
        truncated=none[:, 0],
        marker_ids=(3 % model.config.get_text_config().vocab_size,),
    )
