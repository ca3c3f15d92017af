"""Base class of engines that sample from a copy of the policy's weights, in another process or another library."""

from __future__ import annotations

import dataclasses
import threading
from abc import abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from typing_extensions import override

from nrt_lightning.errors import InputError
from nrt_lightning.functional import check_at_least
from nrt_lightning.losses import SamplerCorrection, TruncatedImportance
from nrt_lightning.models.policy.vocabulary import unused_ids
from nrt_lightning.models.policy.weights_state import weights_state
from nrt_lightning.rollouts.engine import GenerationRequest, Generations, Progress, RolloutEngine
from nrt_lightning.rollouts.remote.jobs import Job, Line, gather, jobs_of
from nrt_lightning.rollouts.remote.processes import in_any

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy

PROBE_TOKENS = 8  # sampled to compare log-probs after weights were sent


class RemoteEngine(RolloutEngine):
    """An engine with its own copy of the weights.

    `generate` first sends the policy's weights if they have changed since they were last sent. In threads other than
    the main one, and for sharded policies, whose weights all processes must send together, it does not: it samples from
    the weights that were last sent.

    A subclass implements `max_tokens`, `load_weights` and `sample`, and usually `check`.

    Args:
        sampler_correction: off-policy correction for a loss whose `sampler_correction` is null; null for none.
        tolerance: largest mean difference between the log-probs of sampler and trainer after weights were sent, in
            nats.
    """

    own_weights = True
    serves_counts = True
    start_hint = ""  # how to start a sampler that serves the policy; ends some errors

    def __init__(
        self,
        sampler_correction: SamplerCorrection | None = TruncatedImportance(),  # noqa: B008  (frozen settings)
        tolerance: float = 0.1,
    ) -> None:
        check_at_least("engine.tolerance", tolerance, 0, above=True)
        self.sampler_correction = sampler_correction  # type: ignore[assignment]
        self.tolerance = tolerance
        self.version = -1  # of the weights last sent: 0 for the first
        self.sent: tuple[int, ...] | None = None  # state of the policy's weights when they were sent

    @property
    @abstractmethod
    def max_tokens(self) -> int:
        """Largest number of tokens in a sequence, prompt included."""

    @abstractmethod
    def load_weights(self, policy: Policy, version: int) -> None:
        """Copy the policy's current weights to the sampler.

        Called on all processes. Under sharding, the weights can be read only inside this call.
        """

    @abstractmethod
    def sample(self, jobs: list[Job], request: GenerationRequest, progress: Progress | None) -> list[list[Line]]:
        """Sample the continuations of every job, in the order of the jobs.

        Args:
            jobs: the prompts of the request, with the number of continuations and the seed of each.
            request: sampling settings.
            progress: called as tokens arrive.
        """

    @override
    def generate(self, policy: Policy, request: GenerationRequest, progress: Progress | None = None) -> Generations:
        if threading.current_thread() is threading.main_thread() and not (policy.sharding.active and self.sent):
            self.send(policy)
        limit, longest = self.max_tokens, int(request.prompt_mask.sum(dim=1).max()) + request.max_new_tokens
        if longest > limit:
            raise InputError(
                f"{type(self).__name__} takes at most {limit} tokens, but the longest prompt and the new tokens are "
                f"{longest}. Raise its limit, or lower data.max_prompt_tokens or sampling.max_trace_tokens."
                f"{self.start_hint}"
            )
        request = dataclasses.replace(request, banned_ids=[*request.banned_ids, *unused_ids(policy)])
        return gather(request, self.sample(jobs_of(request), request, progress), self.version, policy.tokenizer)

    @override
    def send(self, policy: Policy) -> None:
        state = weights_state(policy)
        changed = state != self.sent
        if not (in_any(changed, policy.device) if policy.sharding.active else changed):
            return
        if self.version < 0:
            self.check(policy)
        with policy.sharding.readable(policy.network):
            self.load_weights(policy, self.version + 1)
        self.version, self.sent = self.version + 1, state
        if self.version & (self.version - 1) == 0:  # versions 0, 1, 2, 4, 8: some faults show only after some time
            self.check_logprobs(policy)

    def check_logprobs(self, policy: Policy) -> None:
        """Compare the sampler's log-probs with the policy's.

        Raises:
            InputError: they differ by more than `tolerance`, so the sampler does not serve the policy.
        """
        size = len(policy.tokenizer)
        ids = torch.arange(0, size, max(1, size // PROBE_TOKENS))[None]  # [1, P]
        request = GenerationRequest(ids, torch.ones_like(ids, dtype=torch.bool), PROBE_TOKENS, stop_ids=[])
        [[line]] = self.sample([Job(ids[0].tolist(), 1, 0)], request, None)
        difference = (torch.tensor(line.logprobs) - policy_logprobs(policy, ids, line.ids)).abs().mean()
        if not difference <= self.tolerance:
            raise InputError(
                f"{type(self).__name__}: the log-probs of sampler and policy differ by {difference:.3g} nats on "
                f"average after the weights were sent; engine.tolerance is {self.tolerance}. The sampler serves "
                f"another model than {policy.source!r}, or its precision is too low. Start it with the policy's model "
                f"and dtype.{self.start_hint}"
            )


def policy_logprobs(policy: Policy, prompt: Tensor, sampled: list[int]) -> Tensor:
    """Log-probs of sampled tokens after a prompt [1, P] under the policy. -> [L]"""
    ids = torch.cat([prompt, torch.tensor([sampled])], dim=1).to(policy.device)  # [1, P + L]
    start = prompt.shape[1]
    with policy.evaluating():
        logits = policy.network(input_ids=ids, use_cache=False).logits[0, start - 1 : -1]  # [L, V]
    return logits.float().log_softmax(dim=-1).gather(-1, ids[0, start:, None]).squeeze(-1).cpu()
