"""Interface of rollout engines: token ids in, token ids out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nrt_lightning.structures import TensorStruct

if TYPE_CHECKING:
    from torch import Tensor

    from nrt_lightning.models.policy.policy import Policy
    from nrt_lightning.structures import Prompts, Sampling

Progress = Callable[[int, int, int], None]  # tokens of the longest row, their limit, unfinished rows


@dataclass
class GenerationRequest(TensorStruct):
    """Prompts to continue, each `group_size` times."""

    prompt_ids: Tensor  # [B, P] left-padded
    prompt_mask: Tensor  # [B, P]
    max_new_tokens: int
    stop_ids: list[int]  # a row ends with the first of these
    group_size: int = 1
    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0
    top_k: int = 0
    banned_ids: list[int] = field(default_factory=list)  # never sampled
    seed: int = 0
    logprobs: bool = field(default=False, kw_only=True)  # return the log-probs of the sampled tokens
    names: list[str] | None = None  # [B] that seed the prompts' random draws; None for the prompts' indices


@dataclass
class Generations(TensorStruct):
    """Sampled tokens; row n continues prompt n // group_size."""

    token_ids: Tensor  # [N, L] right-padded, with the stop token if there is one
    token_mask: Tensor  # [N, L]
    stopped: Tensor  # [N] True: ended with a stop token, False: reached the limit
    logprobs: Tensor | None = None  # [N, L] under the sampling distribution, 0 at padding
    weights_version: int | None = None  # of the weights sent to the engine; None if it samples from the policy itself

    def __len__(self) -> int:
        return self.token_ids.shape[0]

    def select(self, start: int, stop: int) -> Generations:
        """Rows `start` to `stop`."""
        return self.apply(lambda tensor: tensor[start:stop])


class RolloutEngine(ABC):
    """Base class of engines, which continue prompts with the policy's weights."""

    # No annotations: jsonargparse would look their names up in the modules of subclasses, and give up on all settings.
    own_weights = False  # True: `generate` samples from the weights last sent, not from the policy
    shares_device = False  # True: it has its own weights, but runs in the trainer's process and on its device
    sampler_correction = None  # a TruncatedImportance for a loss that has none

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


def trace_request(policy: Policy, prompts: Prompts, sampling: Sampling, seed: int) -> GenerationRequest:
    """The request for traces of training prompts.

    Args:
        policy: its marker and end tokens stop a trace.
        prompts: B prompts.
        sampling: sampling settings.
        seed: of the random draws.
    """
    return GenerationRequest(
        prompt_ids=prompts.prompt_ids,
        prompt_mask=prompts.prompt_mask,
        max_new_tokens=sampling.max_trace_tokens,
        stop_ids=[policy.marker_id] + ([] if sampling.suppress_eos else policy.eos_ids),
        group_size=sampling.group_size,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        banned_ids=policy.eos_ids if sampling.suppress_eos else [],
        seed=seed,
        names=names_of(prompts),
    )
