"""Engine that samples from the policy's model in this process, with one prefill per prompt."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from typing_extensions import override

from nrt_lightning.errors import InputError
from nrt_lightning.functional import check_at_least
from nrt_lightning.models.policy.vocabulary import position_limit, unused_ids, why
from nrt_lightning.models.scoring.recurrence import recurrent
from nrt_lightning.randomness import hashed, row_keys, uniforms
from nrt_lightning.rollouts.decoder_check import NEW, Start, decodes
from nrt_lightning.rollouts.decoding import (
    Decoder,
    FixedDecoder,
    GrowingDecoder,
    fixed_refusal,
    takes_additive_masks,
)
from nrt_lightning.rollouts.decoding_weights import decoding_weights
from nrt_lightning.rollouts.engine import GenerationRequest, Generations, Progress, RolloutEngine
from nrt_lightning.rollouts.growing_cache import decoding_cache
from nrt_lightning.rollouts.non_finite import check_finite, is_finite
from nrt_lightning.rollouts.prefill import prefill
from nrt_lightning.rollouts.recurrent_decoding import equal_lengths, recurrent_decoder
from nrt_lightning.rollouts.sampled_tokens import SampledTokens
from nrt_lightning.rollouts.sampling import sample
from nrt_lightning.rollouts.shared_decoding import LEAST_SAVED, SharedDecoder, numbers_saved, sharing_refusal

if TYPE_CHECKING:
    from transformers import DynamicCache

    from nrt_lightning.models.policy.policy import Policy


@dataclass(frozen=True)
class TransformersEngine(RolloutEngine):
    """Samples from the policy's model in this process.

    A prompt is processed once, and its cache is repeated for the group. Finished rows leave the batch.

    Args:
        max_rows: largest number of rows decoded at once, which bounds the memory of the cache; 0 for a whole window.
        drop_share: finished rows leave the batch when they are at least this fraction of it.
        check_every: tokens between two checks for finished rows; null for 1 on CPU and 16 elsewhere, where a check
            synchronizes the device.
        fixed_shapes: decode in fixed-shape buffers, which a GPU replays as CUDA graphs; rows then leave only when half
            have finished. null for true on a GPU if the model supports it.

    Raises:
        InputError: a number is out of range; at the first use, if the model does not support `fixed_shapes`.
    """

    serves_counts = True
    max_rows: int = 0
    drop_share: float = 0.1
    check_every: int | None = None
    fixed_shapes: bool | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not 0.0 <= self.drop_share <= 1.0:
            raise InputError(f"engine.drop_share is {self.drop_share}: give a fraction between 0 and 1.")
        check_at_least("engine.max_rows", self.max_rows, 0)
        if self.check_every is not None:
            check_at_least("engine.check_every", self.check_every, 1)

    @override
    def generate(self, policy: Policy, request: GenerationRequest, progress: Progress | None = None) -> Generations:
        count, counts = request.prompt_ids.shape[0], request.per_prompt
        uniform = draws(request)  # [L, N]
        check_positions(policy, request)
        sampled = SampledTokens(request, sum(counts), policy.tokenizer, unused_ids(policy))
        per_batch = max(1, self.max_rows // max(counts, default=1)) if self.max_rows else count
        with policy.evaluating(), policy.gathered(), decoding_weights(policy.network):
            # Sorted by length, because a batch is padded to its longest prompt.
            lengths, padded = request.prompt_mask.sum(dim=1), may_pad(policy.network)
            for batch in lengths.argsort(stable=True).split(per_batch):
                for prompts in [batch] if padded else equal_lengths(batch, lengths):
                    self._decode(policy, request, prompts, uniform, sampled, progress)
        return sampled.generations()

    def _decode(
        self,
        policy: Policy,
        request: GenerationRequest,
        prompts: Tensor,  # [b]
        uniform: Tensor,  # [L, N]
        sampled: SampledTokens,
        progress: Progress | None,
    ) -> None:
        model, counts = policy.network, torch.tensor(request.per_prompt, device=prompts.device)  # [B]
        width = int(request.prompt_mask[prompts].sum(dim=1).max())
        mask = request.prompt_mask[prompts, -width:]  # [b, width]
        ids = request.prompt_ids[prompts, -width:]  # [b, width]
        logits, decoder = self._start(model, ids, mask, counts[prompts], request.max_new_tokens)  # [A, V]
        drop_share = max(self.drop_share, decoder.min_drop_share)
        rows = rows_of(request, prompts)  # [A]
        check_every = self.check_every or (1 if logits.device.type == "cpu" else 16)
        finite = torch.ones((), dtype=torch.bool, device=logits.device)
        for step in range(request.max_new_tokens):
            tokens, values = next_tokens(logits, request, sampled.banned_ids, uniform[step, rows])  # [A]
            finite &= is_finite(values)
            logprobs = values if request.temperature else torch.zeros_like(values)  # greedy: of probability 1
            tokens = sampled.add(step, rows, tokens, logprobs)
            last = step + 1 == request.max_new_tokens
            if last or (step + 1) % check_every == 0:
                check_finite(finite, policy, step + 1)
            if last:
                break
            if (step + 1) % check_every == 0:
                sampled.look_for_text(rows, step + 1 - check_every, step + 1)
                unfinished = ~sampled.stopped[rows]  # [A]
                still = int(unfinished.sum())
                if progress is not None:
                    progress(step + 1, request.max_new_tokens, still)
                if still == 0:
                    break
                if 1 - still / len(rows) >= drop_share and still < len(rows):
                    keep = unfinished.nonzero().squeeze(-1)
                    decoder.keep(keep)
                    rows, tokens = rows[keep], tokens[keep]
            logits = decoder.step(tokens)  # [A, V]

    def _start(self, model: Any, ids: Tensor, mask: Tensor, counts: Tensor, new_tokens: int) -> tuple[Tensor, Decoder]:
        """Process prompts [b, P]; the logits of the next token [A, V], and the decoder of A rows, `counts` [b] each."""
        if not may_pad(model):
            state = recurrent_decoder(model, ids.repeat_interleave(counts, dim=0))
            return state.first, state
        limit = mask.shape[1] + new_tokens
        kind = FixedDecoder if self._fixed(model, limit, on_gpu=mask.device.type == "cuda") else GrowingDecoder
        return padded_start(kind, model, ids, mask, counts, limit)

    def _fixed(self, model: Any, limit: int, *, on_gpu: bool) -> bool:
        """True to decode in fixed-shape buffers."""
        if self.fixed_shapes is False or not (self.fixed_shapes or on_gpu):
            return False
        reason = fixed_refusal(model, limit)
        if reason is None and not decodes(model, FixedDecoder, of_two_prompts(FixedDecoder, model)):
            reason = f"{type(model).__name__} does not take its masks"
        if self.fixed_shapes and reason:
            raise InputError(f"engine.fixed_shapes is true, but unsupported by this model: {reason}. Set it to null.")
        return reason is None


def may_pad(model: Any) -> bool:
    """True if prompts of different lengths can be decoded together, padded on the left."""
    return not recurrent(model) and decodes(model, GrowingDecoder, of_two_prompts(GrowingDecoder, model))


def shares_prompts(model: Any, cache: DynamicCache, counts: list[int], limit: int) -> bool:
    """True if `counts` rows of each prompt in a cache shall share its keys and values, in at most `limit` tokens."""
    if numbers_saved(cache, counts) < LEAST_SAVED or sharing_refusal(model, limit) is not None:
        return False
    return decodes(model, SharedDecoder, of_two_prompts(SharedDecoder, model))


def of_two_prompts(kind: type[Decoder], model: Any) -> Start:
    """The start of a decoder with which a model is tried."""
    ones = torch.ones(2, dtype=torch.long, device=model.device)
    return lambda ids, mask: padded_start(kind, model, ids, mask, ones, mask.shape[1] + NEW)


def padded_start(
    kind: type[Decoder], model: Any, ids: Tensor, mask: Tensor, counts: Tensor, limit: int
) -> tuple[Tensor, Decoder]:
    """Process prompts [b, P]; the logits of the next token [A, V], and a decoder of rows of at most `limit` tokens.

    Instead of a growing cache with copies of the prompts, rows share their prompt where that is faster.
    """
    cache = decoding_cache(model.config)
    logits, mask = prefill(model, ids, mask, cache)  # [b, V], [b, P]
    logits, rows = logits.repeat_interleave(counts, dim=0), counts.tolist()
    if kind is SharedDecoder or (kind is GrowingDecoder and shares_prompts(model, cache, rows, limit)):
        return logits, SharedDecoder(model, cache, mask, rows)
    cache.batch_repeat_interleave(counts)  # type: ignore[arg-type]
    mask = mask.repeat_interleave(counts, dim=0)
    if kind is FixedDecoder:
        return logits, FixedDecoder(model, cache, mask, limit)
    return logits, GrowingDecoder(model, cache, mask, additive=takes_additive_masks(model, limit))


def check_positions(policy: Policy, request: GenerationRequest) -> None:
    """Refuse a request whose rows may need more positions than the model has.

    Raises:
        InputError: before anything is computed.
    """
    limit = position_limit(policy.network)
    longest = int(request.prompt_mask.sum(dim=1).max()) if len(request.prompt_ids) else 0
    if limit is not None and request.max_new_tokens and longest + request.max_new_tokens > limit:
        raise InputError(
            f"policy.model {policy.source!r} has {limit} positions{why(policy)}, and a text of {longest} tokens with "
            f"{request.max_new_tokens} new ones needs {longest + request.max_new_tokens}. Lower max_trace_tokens or "
            "max_answer_tokens of sampling, or data.max_prompt_tokens."
        )


def rows_of(request: GenerationRequest, prompts: Tensor) -> Tensor:
    """The numbers of the rows that continue these prompts [b]. [A]"""
    ends = list(itertools.accumulate(request.per_prompt, initial=0))
    rows = [row for prompt in prompts.tolist() for row in range(ends[prompt], ends[prompt + 1])]
    return torch.tensor(rows, dtype=torch.long, device=prompts.device)


def draws(request: GenerationRequest) -> Tensor:
    """Random numbers in [0, 1) for the rows' tokens, [L, N].

    They depend on the seed, the prompt's name and the row's index in its group, but not on other rows.
    """
    device, counts = request.prompt_ids.device, request.per_prompt
    names = request.names or [str(index) for index in range(len(request.prompt_ids))]
    keys = torch.tensor(row_keys(request.seed, names), dtype=torch.long, device=device)  # [B]
    numbers = torch.tensor([number for count in counts for number in range(count)], dtype=torch.long, device=device)
    repeats = torch.tensor(counts, dtype=torch.long, device=device)
    return uniforms(hashed(keys.repeat_interleave(repeats) ^ hashed(numbers)), request.max_new_tokens)


def next_tokens(
    logits: Tensor, request: GenerationRequest, banned_ids: Tensor, uniform: Tensor
) -> tuple[Tensor, Tensor]:
    """Tokens [A], and their log-probs under the sampling distribution [A]; for greedy decoding their logits.

    The logits [A, V] are overwritten: a copy of them for every token takes as long as the choice.
    """
    if len(banned_ids):
        logits.index_fill_(-1, banned_ids, -torch.inf)
    if request.temperature == 0:
        values, tokens = logits.max(dim=-1)  # argmax takes five times as long in bfloat16 on CPUs
        return tokens, values
    return sample(logits, uniform, request.temperature, request.top_p, request.top_k)
