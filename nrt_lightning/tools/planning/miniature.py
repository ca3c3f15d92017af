"""Runs a step of a small policy, and counts what the step needs at full size."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nrt_lightning.models.policy.policy import Policy
from nrt_lightning.models.scoring import base as scoring
from nrt_lightning.rollouts import GenerationRequest, Generations, TransformersEngine, assemble, direct_answers
from nrt_lightning.rollouts.decoding import fixed_refusal
from nrt_lightning.structures import Markup, Prompts, Rollouts
from nrt_lightning.tools.planning.sizes import Lengths, Scale, scale_down
from nrt_lightning.tools.planning.tracker import LiveMemory

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from nrt_lightning.structures import Sampling

MARKER = Markup("marker", (0,), marker_token=True)
FEW = 4  # layers of the smaller of the two miniatures


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a phase needs besides weights and optimizer, on one device."""

    memory: dict[str, int]  # bytes by part at the phase's peak
    tokens: int  # through the layers with a gradient, or while sampling
    tokens_without_gradient: int = 0


def of_all_layers(
    policy: Policy, lengths: Lengths, precision: str, run: Callable[[Miniature], Needs], gradients: float = 1.0
) -> Needs:
    """What a phase needs; extrapolated from miniatures of 4 and 8 layers if the policy has more.

    Args:
        policy: the policy.
        lengths: of the full micro-batch.
        precision: of Lightning's Trainer.
        run: runs the phase.
        gradients: fraction of the gradients on this device.
    """
    layers = policy.config.get_text_config().num_hidden_layers
    if layers <= 2 * FEW:
        return run(Miniature(policy, lengths, precision, layers, gradients))
    few, more = (run(Miniature(policy, lengths, precision, count, gradients)) for count in (FEW, 2 * FEW))
    times = (layers - 2 * FEW) / FEW
    names = dict.fromkeys([*few.memory, *more.memory])
    memory = {n: more.memory.get(n, 0) + times * (more.memory.get(n, 0) - few.memory.get(n, 0)) for n in names}
    return dataclasses.replace(more, memory={name: round(size) for name, size in memory.items() if size > 0})


def with_layers(config: PretrainedConfig, layers: int) -> PretrainedConfig:
    """Reduce a configuration to its first layers, in place."""
    text = config.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    return config


class Miniature:
    """A policy of the same architecture with small sizes.

    Args:
        policy: gives the configuration, adapter and scoring forward; needs no weights.
        lengths: of the full micro-batch.
        precision: of Lightning's Trainer.
        layers: number of layers.
        gradients: fraction of the gradients on this device.
    """

    def __init__(self, policy: Policy, lengths: Lengths, precision: str, layers: int, gradients: float = 1.0) -> None:
        self.lengths, self.precision = lengths, precision
        self.fractions = {"gradients": gradients}
        self.scale: Scale = scale_down(policy.config, lengths)
        small = copy.deepcopy(policy)
        small.config = with_layers(self.scale.widths.applied(policy.config), layers)
        small.markup, small.marker_is_new = MARKER, False
        small.weights, small.quantization, small.grows_vocabulary = "random", None, False
        self.policy = small.load()
        if precision.endswith("-true") and not precision.startswith(("32", "64")):
            self.policy.to(torch.bfloat16)  # stands for float16 too
        self.dtypes = {tuple(p.shape): p.dtype for p in self.policy.parameters() if p.dim() > 1}  # of the weights
        self.tokens = [0, 0]
        network = self.policy.network
        network.get_input_embeddings().register_forward_pre_hook(self.count_tokens)
        logits = lengths.rollouts * lengths.completion * self.scale.full[self.scale.widths.vocabulary]
        scoring.FINAL[network] = True
        scoring.HEADS[network] = scoring.HeadSettings(keep=logits <= scoring.DENSE, chunk=self.scale.chunk)

    def count_tokens(self, module: Any, inputs: tuple[Tensor, ...]) -> None:
        """Count the tokens through the layers."""
        count = 1
        for size in inputs[0].shape:
            count *= self.scale.full.get(size, size)
        self.tokens[0 if torch.is_grad_enabled() else 1] += count

    def part(self, tensor: Tensor) -> str:
        """Name of the part of the memory to which a tensor belongs."""
        shape = tuple(tensor.shape)
        weight = self.dtypes.get(shape) or self.dtypes.get(shape[::-1])
        if weight is not None:
            return "gradients" if tensor.dtype == weight else "weights as cast"
        cached = tensor.dim() == 4 and self.lengths.thinking and shape[2] > self.scale.lengths.prompt
        if self.scale.widths.vocabulary in shape:
            return "logits"
        return "KV cache" if cached and not torch.is_grad_enabled() else "activations"

    def learn(self, *, baseline: bool, reference: bool, accumulate: bool) -> Needs:
        """Run a forward and a backward pass.

        Args:
            baseline: True if the answers are also scored after the empty trace.
            reference: True if a second model scores the completions.
            accumulate: True if gradients of an earlier pass exist.
        """
        network, rollouts = self.policy.network, self.rollouts()
        forward = self.policy.scoring.choose(network, self.lengths.prompt + self.lengths.completion)
        with LiveMemory(self.scale.full, self.part, self.fractions) as memory, self.autocast():
            for _ in range(1 + accumulate):
                self.tokens = [0, 0]
                loss = forward(network, rollouts, baseline=baseline).logprobs.sum()
                if reference:
                    with torch.no_grad():
                        forward(network, rollouts)
                loss.backward()
                del loss
        return Needs(memory.peak, *self.tokens)

    def sample(self, engine: TransformersEngine, sampling: Sampling, *, gpu: bool) -> Needs:
        """Sample the traces of a window: process the prompts, and decode a token at the full length.

        Args:
            engine: the engine.
            sampling: sampling settings.
            gpu: decode as the engine would on a GPU.
        """
        prompts, lengths = self.prompts(), self.scale.lengths
        if engine.fixed_shapes is None:
            fixed = fixed_refusal(self.policy.network, self.lengths.prompt + self.lengths.trace) is None
            engine = dataclasses.replace(engine, fixed_shapes=gpu and fixed)
        request = GenerationRequest(
            prompts.prompt_ids,
            prompts.prompt_mask,
            max_new_tokens=lengths.trace,
            stop_ids=[],
            group_size=lengths.group_size,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
        )
        with LiveMemory(self.scale.full, self.part) as memory, self.autocast():
            engine.generate(self.policy, request)
        full = self.lengths
        return Needs(memory.peak, tokens=full.prompts * full.prompt + full.rollouts * (full.trace - 1))

    def prompts(self) -> Prompts:
        """Prompts and answers of the largest length."""
        count, p, t = self.lengths.prompts, self.scale.lengths.prompt, self.scale.lengths.answer
        ids = torch.ones(count, p + t, dtype=torch.long)
        ids[1::2, 0] = 0  # what all prompts begin with would be read once
        mask = torch.ones(count, p + t, dtype=torch.bool)
        return Prompts(ids[:, :p], mask[:, :p], ids[:, p:], mask[:, p:])

    def rollouts(self) -> Rollouts:
        """Completions of the largest length."""
        prompts, lengths = self.prompts(), self.scale.lengths
        if not lengths.thinking:
            return direct_answers(prompts, MARKER)
        ids = torch.ones(lengths.rollouts, lengths.trace, dtype=torch.long)
        traces = Generations(ids, ids.bool(), stopped=torch.zeros(lengths.rollouts, dtype=torch.bool))
        return assemble(prompts, traces, MARKER)

    def autocast(self) -> torch.autocast:
        """Mixed precision, if the run uses it."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.precision.endswith("-mixed"))
