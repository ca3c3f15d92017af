"""What every rollout engine does: token ids in, token ids out."""

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

Progress = Callable[[int, int, int], None]  # tokens written in the longest row, their limit, rows still writing


@dataclass
class GenerationRequest(TensorStruct):
    """Prompts to continue, each `group_size` times."""

    prompt_ids: Tensor  # [B, P] left-padded
    prompt_mask: Tensor  # [B, P]
    max_new_tokens: int
    stop_ids: list[int]  # a row ends with the first of these it writes
    group_size: int = 1
    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0
    top_k: int = 0
    banned_ids: list[int] = field(default_factory=list)  # never written
    seed: int = 0
    logprobs: bool = False  # give the sampled tokens' log-probs too
    names: list[str] | None = None  # B of them, that the draws follow from; None: from the prompts' places


@dataclass
class Generations(TensorStruct):
    """What was written, rows of a group side by side: row n continues prompt n // group_size."""

    token_ids: Tensor  # [N, L] right-padded, with the stop token where there is one
    token_mask: Tensor  # [N, L]
    stopped: Tensor  # [N] True: ended with a stop token, False: reached the limit
    logprobs: Tensor | None = None  # [N, L] under the sampling distribution, 0 at padding
    weights_version: int | None = None  # which of the weights sent to the engine wrote it; None: the policy's own

    def __len__(self) -> int:
        return self.token_ids.shape[0]

    def select(self, start: int, stop: int) -> Generations:
        """Rows `start` to `stop`."""
        return self.apply(lambda tensor: tensor[start:stop])


class RolloutEngine(ABC):
    """Something that continues prompts with the policy's current weights."""

    # No annotations: jsonargparse would look their names up in the modules of subclasses, and give up on all settings.
    own_weights = False  # True: `generate` reads none of the policy's weights, but those last sent
    sampler_correction = None  # a TruncatedImportance for a loss that has none itself

    def check(self, policy: Policy) -> None:  # noqa: B027  (most serve all)
        """Refuse a policy that the engine cannot serve, before its weights are read.

        Raises:
            InputError: with the mend.
        """

    @abstractmethod
    def generate(self, policy: Policy, request: GenerationRequest, progress: Progress | None = None) -> Generations:
        """Continue every prompt of the request.

        The result depends on the weights, the request and its seed alone.

        Args:
            policy: whose weights to sample from.
            request: prompts and sampling settings, on the policy's device.
            progress: called as tokens are written.
        """

    def send(self, policy: Policy) -> None:  # noqa: B027  (most have nothing to take over)
        """Take over the policy's weights as they are now.

        Called on every process at once by callbacks that sample while the policy is trained; what engines with weights
        of their own sample from until it is called again. Others need not do anything.

        Args:
            policy: that is trained.
        """


def names_of(prompts: Prompts) -> list[str]:
    """Names of the prompts, which are the same in whatever batch and process they are. B of them"""
    if prompts.rows:
        return [f"{row.id}\n{row.question}" for row in prompts.rows]
    return [str(ids[mask].tolist()) for ids, mask in zip(prompts.prompt_ids, prompts.prompt_mask, strict=True)]


def trace_request(policy: Policy, prompts: Prompts, sampling: Sampling, seed: int) -> GenerationRequest:
    """What to ask of an engine for the traces of training prompts.

    Args:
        policy: whose marker and end tokens stop a trace.
        prompts: B prompts.
        sampling: how traces are drawn.
        seed: of the draws.
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
