"""What the vLLM engines share: weights of their own that follow the policy's, and a proof that they are the same."""

from __future__ import annotations

import threading
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch

from nrt_lightning.errors import InputError
from nrt_lightning.functional import check_at_least
from nrt_lightning.losses import TruncatedImportance
from nrt_lightning.models.policy.weights_state import weights_state
from nrt_lightning.rollouts.engine import GenerationRequest, Generations, Progress, RolloutEngine
from nrt_lightning.rollouts.remote.jobs import Job, Line, gather, jobs_of, sampling_settings
from nrt_lightning.rollouts.remote.processes import in_any

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy

PROBE_TOKENS = 8  # written and compared after a hand-over


class VLLMEngine(RolloutEngine):
    """An engine with weights of its own.

    `generate` sends the policy's weights first, if they have changed since they were sent last. Not in threads other
    than the main one, and not a sharded policy's, which all processes must send together: there it samples from the
    weights that were last sent.

    Args:
        sampler_correction: what the loss corrects for this sampler with, where it has no `sampler_correction` itself;
            null for nothing.
        tolerance: largest mean difference, in nats, of the log-probs of sampler and trainer after weights were sent.
    """

    own_weights = True

    def __init__(self, sampler_correction: TruncatedImportance | None, tolerance: float) -> None:
        check_at_least("engine.tolerance", tolerance, 0, above=True)
        self.sampler_correction = sampler_correction  # type: ignore[assignment]
        self.tolerance = tolerance
        self.version = -1  # of the weights that were sent: 0 for the first
        self.sent: tuple[int, ...] | None = None  # the state of the policy's weights when they were

    def generate(self, policy: Policy, request: GenerationRequest, progress: Progress | None = None) -> Generations:
        """See `RolloutEngine`."""
        if threading.current_thread() is threading.main_thread() and not (policy.sharding.active and self.sent):
            self.send(policy)
        limit, longest = self.max_tokens, int(request.prompt_mask.sum(dim=1).max()) + request.max_new_tokens
        if longest > limit:
            raise InputError(
                f"{type(self).__name__} takes {limit} tokens, and a prompt with what is to be written has {longest}. "
                "Start it with a larger max_model_len, or make max_prompt_tokens or max_trace_tokens smaller."
            )
        found = self.write(jobs_of(request), sampling_settings(request), progress)
        return gather(request, found, self.version)

    def send(self, policy: Policy) -> None:
        """See `RolloutEngine`. Weights that have not changed are not sent again."""
        state = weights_state(policy)
        changed = state != self.sent
        if not (in_any(changed, policy.device) if policy.sharding.active else changed):
            return
        if self.version < 0:
            self.check(policy)
        with policy.sharding.readable(policy.network):
            self.hand_over(policy, self.version + 1)
        self.version, self.sent = self.version + 1, state
        if self.version & (self.version - 1) == 0:  # versions 0, 1, 2, 4, 8: what goes wrong may take time to be seen
            self.prove(policy)

    @property
    @abstractmethod
    def max_tokens(self) -> int:
        """Longest text, prompt and all."""

    @abstractmethod
    def hand_over(self, policy: Policy, version: int) -> None:
        """Give vLLM the weights as they are now; on every process at once."""

    @abstractmethod
    def write(self, jobs: list[Job], settings: dict[str, Any], progress: Progress | None) -> list[list[Line]]:
        """The continuations of every job, in order."""

    def prove(self, policy: Policy) -> None:
        """Hold vLLM's log-probs against the policy's own.

        Raises:
            InputError: they differ: what vLLM serves is not the policy.
        """
        size = len(policy.tokenizer)
        prompt = [*range(0, size, max(1, size // PROBE_TOKENS))]
        settings = {"max_tokens": PROBE_TOKENS, "temperature": 1.0, "logprobs": 0, "ignore_eos": True}
        [[line]] = self.write([Job(prompt, 1, 0)], settings, None)
        difference = (torch.tensor(line.logprobs) - own_logprobs(policy, prompt, line.ids)).abs().mean()
        if not difference <= self.tolerance:
            raise InputError(
                f"{type(self).__name__}: the log-probs of vLLM differ from the policy's by {difference:.3g} nats on "
                f"average, after the policy's weights were sent; engine.tolerance is {self.tolerance}. It serves "
                f"another model than {policy.source!r}, or computes in too low a precision. Start it with the policy's "
                "own model, as `nrt-lightning serve` does."
            )


def own_logprobs(policy: Policy, prompt: list[int], written: list[int]) -> torch.Tensor:
    """What the policy itself says of tokens after a prompt. [L]"""
    ids = torch.tensor([prompt + written], device=policy.device)  # [1, P + L]
    with policy.evaluating():
        logits = policy.network(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]  # [L, V]
    return logits.float().log_softmax(dim=-1).gather(-1, ids[0, len(prompt) :, None]).squeeze(-1).cpu()
