"""Runs a step of a policy with a few of its layers and prompts, and counts what it needs."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

from nrt_lightning.models.scoring import base as scoring
from nrt_lightning.models.scoring.base import PromptCopies, ScoringForward, positions
from nrt_lightning.models.scoring.best import WRONG
from nrt_lightning.models.scoring.recurrence import recurrent
from nrt_lightning.rollouts import GenerationRequest, Generations, TransformersEngine, assemble, direct_answers
from nrt_lightning.rollouts.decoding import Decoder, FixedDecoder, GrowingDecoder, fixed_refusal, forward
from nrt_lightning.rollouts.decoding_weights import decoding_weights
from nrt_lightning.rollouts.recurrent_decoding import StateDecoder
from nrt_lightning.rollouts.transformers_engine import next_tokens
from nrt_lightning.structures import Prompts, Rollouts
from nrt_lightning.tools.planning.fakes import MARKER, fake_policy
from nrt_lightning.tools.planning.tracker import ATTENTION, LiveMemory

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy
    from nrt_lightning.structures import Sampling
    from nrt_lightning.tools.planning.sizes import Lengths

Flops = dict[str, float]
SAMPLING = ("prompts", "cache", "tokens")  # phases of a rollout
HALF = {"16-true": torch.bfloat16, "bf16-true": torch.bfloat16}  # bfloat16 stands for float16 too


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a phase needs besides weights and optimizer, on one device."""

    peaks: dict[str, dict[str, int]]  # by its own phases, bytes by part at the peak
    flops: Flops  # by part

    @property
    def memory(self) -> dict[str, int]:
        """Bytes by part at the largest peak."""
        return max(self.peaks.values(), key=lambda parts: sum(parts.values()), default={})


class Miniature:
    """A policy with the first of its layers, and the first prompts of a micro-batch.

    Args:
        policy: gives the configuration, adapter and scoring forward; needs no weights.
        lengths: of the full micro-batch.
        precision: of Lightning's Trainer.
        layers: number of layers.
        prompts: number of prompts.
        gradients: fraction of the gradients on this device.
    """

    def __init__(
        self, policy: Policy, lengths: Lengths, precision: str, layers: int, prompts: int, gradients: float = 1.0
    ) -> None:
        self.lengths, self.precision = dataclasses.replace(lengths, prompts=prompts), precision
        self.fractions = {"gradients": gradients}
        self.policy = fake_policy(policy, layers, HALF.get(precision))
        self.dtypes = {tuple(p.shape): p.dtype for p in self.policy.parameters() if p.dim() > 1}  # of the weights
        network = self.policy.network
        self.vocabulary = network.get_output_embeddings().weight.shape[0]
        network.get_input_embeddings().register_forward_pre_hook(self.begin)
        logits = lengths.rollouts * lengths.completion * self.vocabulary
        scoring.HEADS[network] = scoring.HeadSettings(keep=logits <= scoring.DENSE)
        self.memory = LiveMemory(self.part, self.fractions)

    def begin(self, *_: Any) -> None:
        """Note what a forward pass is for."""
        if self.memory.phase not in SAMPLING:
            self.memory.phase = "forward" if torch.is_grad_enabled() else "baseline and reference"

    def part(self, tensor: Tensor) -> str:
        """Name of the part of the memory to which a tensor belongs."""
        shape = tuple(tensor.shape)
        weight = self.dtypes.get(shape) or self.dtypes.get(shape[::-1])
        if weight is not None:
            return "gradients" if tensor.dtype == weight else "weights as cast"
        if self.vocabulary in shape:
            return "logits"
        cached = tensor.dim() == 4 and self.lengths.thinking and shape[2] > self.lengths.prompt
        return "KV cache" if cached and self.memory.phase in SAMPLING else "activations"

    def learn(self, *, baseline: bool, reference: bool, accumulate: bool) -> Needs:
        """Run a forward and a backward pass.

        Args:
            baseline: True if the answers are also scored after the empty trace.
            reference: True if a second model scores the completions.
            accumulate: True if gradients of an earlier pass exist.
        """
        while True:
            run = self.policy.scoring.choose(self.policy.network, self.lengths.prompt + self.lengths.completion)
            try:
                return self.learn_by(run, baseline=baseline, reference=reference, accumulate=accumulate)
            except (TypeError, ValueError, RuntimeError, IndexError, AttributeError, KeyError):
                # The model does not take such masks or caches; its first use would find that and try another forward.
                if type(run) in (type(self.policy.scoring), PromptCopies):
                    raise
                WRONG.setdefault(self.policy.network, set()).add(type(run))
                self.memory = LiveMemory(self.part, self.fractions)

    def learn_by(self, run: ScoringForward, *, baseline: bool, reference: bool, accumulate: bool) -> Needs:
        """Run a forward and a backward pass by one of the scoring forwards."""
        network, rollouts = self.policy.network, self.rollouts()
        with self.memory as memory, self.autocast():
            for _ in range(1 + accumulate):
                memory.flops.clear()
                loss = run(network, rollouts, baseline=baseline).logprobs.sum()
                if reference:
                    with torch.no_grad():
                        run(network, rollouts)
                memory.phase = "backward"
                loss.backward()
                del loss
        flops = dict.fromkeys(("forward", "backward", "baseline and reference"), 0.0)
        for (phase, _), number in memory.flops.items():
            flops[phase or "forward"] += number
        return Needs(memory.peaks, flops)

    def sample(self, engine: TransformersEngine, sampling: Sampling, *, gpu: bool) -> Needs:
        """Sample the traces of a window: process the prompts, and decode a token at the full length.

        Args:
            engine: the engine.
            sampling: sampling settings.
            gpu: decode as the engine would on a GPU.
        """
        x, network = self.lengths, self.policy.network
        fixed = engine.fixed_shapes
        if fixed is None:
            fixed = gpu and fixed_refusal(network, x.prompt + x.trace) is None
        prompts, memory = self.prompts(), self.memory
        memory.phase = SAMPLING[0]
        given: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
        request = GenerationRequest(prompts.prompt_ids, prompts.prompt_mask, x.trace, [], x.group_size, **given)
        tokens = torch.ones(x.rollouts, dtype=torch.long)
        banned, uniform = torch.zeros(0, dtype=torch.long), torch.zeros(x.rollouts)
        self.policy.eval()
        layers = nullcontext() if gpu else decoding_weights(network)  # weights seem to be on a CPU
        with memory, torch.no_grad(), self.autocast(), layers:
            logits, decoder = self.start(prompts, fixed=bool(fixed))
            next_tokens(logits, request, banned, uniform)
            del logits
            memory.phase = SAMPLING[-1]
            next_tokens(decoder.step(tokens), request, banned, uniform)
        self.policy.train()
        first = sum(number for (phase, _), number in memory.flops.items() if phase != SAMPLING[-1])
        attention = memory.flops[SAMPLING[-1], ATTENTION]  # of a last token; on average it is half
        matrices = sum(memory.flops.values()) - first - attention
        average = matrices + attention * (x.prompt + x.trace / 2) / (x.prompt + x.trace)
        return Needs(memory.peaks, {"rollout": first + (x.trace - 1) * average})

    def start(self, prompts: Prompts, *, fixed: bool) -> tuple[Tensor, Decoder]:
        """Process prompts; logits of the next token, and a decoder that is about to decode the last token."""
        network, x = self.policy.network, self.lengths
        more = max(0, x.trace - 2)  # tokens between the prompt and the last but one
        ids, mask = prompts.prompt_ids, prompts.prompt_mask
        if recurrent(network):
            state = StateDecoder(network, ids.repeat_interleave(x.group_size, dim=0))
            lengthen(state.state, more)
            state.length += more
            return state.first, state
        cache = DynamicCache(config=network.config)
        logits = forward(network, ids, mask.long(), positions(mask), cache)
        self.memory.phase = SAMPLING[1]
        cache.batch_repeat_interleave(x.group_size)
        lengthen(cache, more)
        longer = F.pad(mask.repeat_interleave(x.group_size, dim=0), (0, more), value=True)
        logits = logits.repeat_interleave(x.group_size, dim=0)
        if not fixed:
            return logits, GrowingDecoder(network, cache, longer)
        return logits, FixedDecoder(network, cache, longer, x.prompt + x.trace)

    def prompts(self) -> Prompts:
        """Prompts and answers of the largest length."""
        count, p, t = self.lengths.prompts, self.lengths.prompt, self.lengths.answer
        ids = torch.ones(count, p + t, dtype=torch.long)
        ids[1::2, 0] = 0  # what all prompts begin with would be read once
        mask = torch.ones(count, p + t, dtype=torch.bool)
        return Prompts(ids[:, :p], mask[:, :p], ids[:, p:], mask[:, p:])

    def rollouts(self) -> Rollouts:
        """Completions of the largest length."""
        prompts, lengths = self.prompts(), self.lengths
        if not lengths.thinking:
            return direct_answers(prompts, MARKER)
        ids = torch.ones(lengths.rollouts, lengths.trace, dtype=torch.long)
        traces = Generations(ids, ids.bool(), stopped=torch.zeros(lengths.rollouts, dtype=torch.bool))
        return assemble(prompts, traces, MARKER)

    def autocast(self) -> torch.autocast:
        """Mixed precision, if the run uses it."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.precision.endswith("-mixed"))


def lengthen(cache: Any, more: int) -> None:
    """Give the layers of a cache that keep keys and values as many as after more tokens."""
    for layer in cache.layers:
        for name in ("keys", "values"):
            held = getattr(layer, name, None)
            window = getattr(layer, "sliding_window", None)
            if isinstance(held, Tensor) and held.dim() == 4:
                count = more if window is None else min(more, max(0, window - 1 - held.shape[2]))
                setattr(layer, name, F.pad(held, (0, 0, 0, count)))
        if hasattr(layer, "cumulative_length"):
            layer.cumulative_length += more
