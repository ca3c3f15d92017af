"""Interface of rollout engines: token ids in, token ids out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nrt_lightning.rollouts.stop_text import Ending
from nrt_lightning.structures import Markup, TensorStruct

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy
    from nrt_lightning.structures import Prompts, Sampling

Progress = Callable[[int, int, int], None]  # tokens of the longest row, their limit, unfinished rows


@dataclass
class GenerationRequest(TensorStruct):
    """Prompts to continue, each `group_size` times, or as often as `counts` says."""

    prompt_ids: Tensor  # [B, P] left-padded
    prompt_mask: Tensor  # [B, P]
    max_new_tokens: int
    stop_ids: list[int]  # a row ends with the first of these
    stop_text: str | None = field(default=None, kw_only=True)  # or when this is complete, in whatever tokens
    group_size: int = 1
    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0
    top_k: int = 0
    banned_ids: list[int] = field(default_factory=list)  # never sampled
    seed: int = 0
    logprobs: bool = field(default=False, kw_only=True)  # return the log-probs of the sampled tokens
    names: list[str] | None = None  # [B] that seed the prompts' random draws; None for the prompts' indices
    counts: list[int] | None = field(default=None, kw_only=True)  # [B] continuations of each; None: `group_size`

    @property
    def per_prompt(self) -> list[int]:
        """The number of continuations of each prompt, at least 1. [B]"""
        return [self.group_size] * len(self.prompt_ids) if self.counts is None else self.counts


@dataclass
class Generations(TensorStruct):
    """Sampled tokens; the rows of a prompt are adjacent."""

    token_ids: Tensor  # [N, L] right-padded, with the stop token or text if there is one
    token_mask: Tensor  # [N, L]
    stopped: Tensor  # [N] True: ended with a stop, False: reached the limit
    logprobs: Tensor | None = None  # [N, L] under the sampling distribution, 0 at padding
    weights_version: int | None = None  # of the weights sent to the engine; None if it samples from the policy itself
    ending: Tensor | None = None  # [N] an `Ending`; None if there is no stop text
    stop_width: Tensor | None = None  # [N] tokens at the end that hold the stop; None if there is no stop text

    def __len__(self) -> int:
        return self.token_ids.shape[0]

    @property
    def lengths(self) -> Tensor:
        """Tokens before the stop. [N]"""
        stop = self.stopped.long() if self.stop_width is None else self.stop_width
        return self.token_mask.sum(dim=1) - stop

    def emitted(self, markup: Markup) -> Tensor:
        """True where the policy wrote the marker. [N]"""
        if self.ending is not None and not markup.marker_token:
            return self.ending == Ending.TEXT
        last = self.token_mask.sum(dim=1, keepdim=True) - 1  # [N, 1]
        ids = self.token_ids.gather(1, last.clamp(min=0)).squeeze(1) if self.token_ids.shape[1] else last.squeeze(1)
        return self.stopped & (ids == markup.marker_ids[0]) if markup.marker_token else torch.zeros_like(self.stopped)

    def end_ids(self, markup: Markup) -> Tensor:
        """The end token that ended a row without the marker, -1 where none did. [N]"""
        if not self.token_ids.shape[1]:
            return torch.full_like(self.lengths, -1)
        last = (self.token_mask.sum(dim=1, keepdim=True) - 1).clamp(min=0)  # [N, 1]
        by_token = self.stopped if self.ending is None else self.ending == Ending.TOKEN
        return torch.where(by_token & ~self.emitted(markup), self.token_ids.gather(1, last).squeeze(1), -1)

    def select(self, start: int, stop: int) -> Generations:
        """Rows `start` to `stop`."""
        return self.apply(lambda tensor: tensor[start:stop])

    def take(self, rows: Tensor) -> Generations:
        """The rows of these numbers, in their order."""
        return self.apply(lambda tensor: tensor[rows])


class RolloutEngine(ABC):
    """Base class of engines, which continue prompts with the policy's weights."""

    # No annotations: jsonargparse would look their names up in the modules of subclasses, and give up on all settings.
    own_weights = False  # True: `generate` samples from the weights last sent, not from the policy
    shares_device = False  # True: it has its own weights, but runs in the trainer's process and on its device
    serves_counts = False  # True: `generate` reads `GenerationRequest.counts`
    sampler_correction = None  # a SamplerCorrection for a loss that has none

    def check(self, policy: Policy) -> None:  # noqa: B027  (most engines serve every policy)
        """Check, before any weights are read, that the engine can serve a policy.

        Raises:
            InputError: names the setting and the fix.
        """

    @abstractmethod
    def generate(self, policy: Policy, request: GenerationRequest, progress: Progress | None = None) -> Generations:
        """Continue every prompt of the request.

        The result depends on nothing but the weights, the request and its seed.

        Args:
            policy: whose weights to sample from.
            request: prompts and sampling settings, on the policy's device.
            progress: called as tokens are sampled.
        """

    def send(self, policy: Policy) -> None:  # noqa: B027  (most engines read the policy's weights)
        """Copy the policy's current weights, from which `generate` samples until the next call.

        Called on all processes by callbacks that sample during training. Engines without their own weights ignore it.

        Args:
            policy: the trained policy.
        """


def names_of(prompts: Prompts) -> list[str]:
    """A name for each prompt that does not depend on its batch or process. [B]"""
    if prompts.rows:
        return [f"{row.id}\n{row.question}" for row in prompts.rows]
    return [str(ids[mask].tolist()) for ids, mask in zip(prompts.prompt_ids, prompts.prompt_mask, strict=True)]


def trace_stops(policy: Policy) -> list[int]:
    """The tokens that end a trace: the marker, and those that end an answer.

    A text marker may contain an end token, for instance of the model's generation config. That token does not end a
    trace if more of the marker follows it, since the marker could not be written.
    """
    markup = policy.markup
    inside = () if markup.marker_token else markup.marker_ids[:-1]
    return markup.marker_stops() + [token for token in policy.eos_ids if token not in inside]


def trace_request(policy: Policy, prompts: Prompts, sampling: Sampling, seed: int) -> GenerationRequest:
    """The request for traces of training prompts.

    Args:
        policy: its marker and end tokens stop a trace.
        prompts: B prompts.
        sampling: sampling settings.
        seed: of the random draws.
    """
    suppressed = sampling.suppress_eos
    return GenerationRequest(
        prompt_ids=prompts.prompt_ids,
        prompt_mask=prompts.prompt_mask,
        max_new_tokens=sampling.max_trace_tokens,
        stop_ids=policy.markup.marker_stops() if suppressed else trace_stops(policy),
        stop_text=policy.markup.marker_text,
        group_size=sampling.group_size,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        banned_ids=[token for token in policy.eos_ids if token not in policy.markup.marker_ids] if suppressed else [],
        seed=seed,
        names=names_of(prompts),
    )
