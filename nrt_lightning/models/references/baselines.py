"""Baseline scorers: which model scores the answers without a trace."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from typing_extensions import override

from nrt_lightning.errors import InputError
from nrt_lightning.models.policy.digests import digest, weights_digest
from nrt_lightning.models.references.answer_cache import AnswerCache
from nrt_lightning.models.references.base import FrozenReference, Reference
from nrt_lightning.models.sharding.base import NoSharding, Sharding

if TYPE_CHECKING:
    from torch import Tensor

    from nrt_lightning.models.policy.policy import Policy
    from nrt_lightning.structures import Rollouts

log = logging.getLogger(__name__)


class BaselineScorer(ABC):
    """Computes the log-probs of the answers after the empty trace. Used only if something needs a baseline."""

    from_policy_forward: bool = False  # True: `Policy.score(rollouts, baseline=True)` gives them in its forward pass
    needs_reference: bool = False  # True: the module's reference gives them

    def check(self, reference: Reference) -> None:  # noqa: B027  (optional)
        """Raise `InputError` if it cannot use the reference; called before weights are read."""

    def load(  # noqa: B027
        self, policy: Policy, reference: Reference, directory: Path | None, precision: str
    ) -> None:
        """Prepare scoring; called before a checkpoint is restored into the policy.

        Args:
            policy: the policy with its initial weights.
            reference: the module's, not yet loaded.
            directory: for files of the run; None if the weights are read without a Trainer, which may follow.
            precision: of Lightning's Trainer.
        """

    @abstractmethod
    def logprobs(self, rollouts: Rollouts) -> Tensor | None:
        """Log-probs of the answers after the empty trace, without gradient, 0 outside the answer.

        Returns:
            `[B, T]`, or None if `from_policy_forward`.
        """


@dataclass
class PolicyBaseline(BaselineScorer):
    """The current policy, scored together with its rollouts (arXiv 2602.11549)."""

    from_policy_forward = True

    @override
    def logprobs(self, rollouts: Rollouts) -> None:
        return None


@dataclass
class ReferenceBaseline(BaselineScorer):
    """The module's reference, which is then loaded even without a KL term.

    Raises:
        InputError: there is no reference.
    """

    needs_reference = True
    reference: Reference | None = field(default=None, init=False, repr=False)

    @override
    def check(self, reference: Reference) -> None:
        if not reference.available:
            raise InputError(
                "baseline_scorer is ReferenceBaseline, but there is no reference. Set reference, for instance to "
                "FrozenReference, or baseline_scorer to PolicyBaseline."
            )

    @override
    def load(self, policy: Policy, reference: Reference, directory: Path | None, precision: str) -> None:
        reference.load(policy)
        self.reference = reference

    @override
    def logprobs(self, rollouts: Rollouts) -> Tensor:
        assert self.reference is not None, "load first"
        return self.reference.logprobs(rollouts.empty_traces())[:, rollouts.direct_answers]  # [B, T]


class InitialModel(FrozenReference):
    """The policy before training, whole in every process: each process scores the rows that it lacks."""

    @override
    def layout(self, policy: Policy) -> Sharding:
        return NoSharding()


@dataclass
class InitialBaseline(BaselineScorer):
    """The policy before training, computed once per row and cached on disk, as in RLPR (arXiv 2506.18254).

    The cache is in `baselines/MODEL-PRECISION` under the trainer's `default_root_dir`, where MODEL is a digest of the
    initial weights. A row's key is a digest of its encoded prompt, its answer and the marker. Another model, row or
    template therefore has other keys and is scored again. A second copy of the model is read only if the cache lacks
    a row.
    """

    initial: FrozenReference = field(default_factory=InitialModel, init=False, repr=False)
    policy: list[Policy] = field(default_factory=list, init=False, repr=False)  # a list, so that it is no submodule
    weights: str = field(default="", init=False, repr=False)  # digest of the initial ones
    cache: AnswerCache | None = field(default=None, init=False, repr=False)

    @override
    def load(self, policy: Policy, reference: Reference, directory: Path | None, precision: str) -> None:
        if not self.policy or self.policy[0] is not policy:
            self.initial, self.policy, self.cache = InitialModel(), [policy], None  # whatever was scored before
            with policy.gathered():
                self.weights = weights_digest(policy.network)
            if not policy.readable:
                self.initial.load(policy)  # copied now: the initial weights cannot be read later
        if self.cache is None and directory is not None:
            path = directory / "baselines" / f"{self.weights}-{precision}"
            self.cache = AnswerCache(path)
            log.info("%d rows have a cached baseline in %s", len(self.cache), path)

    @override
    def logprobs(self, rollouts: Rollouts) -> Tensor:
        assert self.cache is not None, "load first"
        keys = row_keys(rollouts)
        if not all(key in self.cache for key in keys):
            self.cache.refresh()
        if not all(key in self.cache for key in keys):
            self._add(rollouts, keys)
        known = torch.zeros(rollouts.answer_mask.shape)  # [B, T]
        known[rollouts.answer_mask.cpu()] = torch.cat([self.cache[key] for key in keys])
        return known.to(rollouts.answer_ids.device)

    def _add(self, rollouts: Rollouts, keys: list[str]) -> None:
        assert self.cache is not None
        if not self.initial.frozen:
            self.initial.load(self.policy[0])
        scored = self.initial.logprobs(rollouts.empty_traces())[:, rollouts.direct_answers].float().cpu()  # [B, T]
        answers = [row[mask] for row, mask in zip(scored, rollouts.answer_mask.cpu(), strict=True)]
        self.cache.add({key: row for key, row in zip(keys, answers, strict=True) if key not in self.cache})


def row_keys(rollouts: Rollouts) -> list[str]:
    """B keys, each a digest of the token ids of a prompt and its answer and of the marker."""
    marker = b"".join(token.to_bytes(8, "big") for token in rollouts.marker_ids)
    prompts = (ids[mask] for ids, mask in zip(rollouts.prompt_ids.cpu(), rollouts.prompt_mask.cpu(), strict=True))
    answers = (ids[mask] for ids, mask in zip(rollouts.answer_ids.cpu(), rollouts.answer_mask.cpu(), strict=True))
    pairs = zip(prompts, answers, strict=True)
    return [digest(prompt.numpy().tobytes(), answer.numpy().tobytes(), marker) for prompt, answer in pairs]
