"""Baseline scorers: whose confidence after the empty trace a trace is held against."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

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
    """Gives the log-probs of the answers after the empty trace. Asked only where something needs a baseline."""

    from_policy_forward: bool = False  # whether the policy's own forward pass gives them
    needs_reference: bool = False  # whether the module's reference gives them

    def check(self, reference: Reference) -> None:  # noqa: B027  (most have nothing to refuse)
        """Refuse a reference it cannot work with, before weights are read."""

    @abstractmethod
    def load(self, policy: Policy, reference: Reference, directory: Path, precision: str) -> None:
        """Make ready; called once, before a checkpoint is restored into the policy.

        Args:
            policy: with its initial weights.
            reference: the module's, not yet loaded.
            directory: where files of the run may go.
            precision: of the run, as Lightning names it.
        """

    @abstractmethod
    def logprobs(self, rollouts: Rollouts) -> Tensor:
        """Log-probs of the answers after the empty trace, without gradient, 0 outside the answer. -> [B, T]"""


@dataclass
class PolicyBaseline(BaselineScorer):
    """The policy as it is at the moment: the paper's choice (arXiv 2602.11549). Scored along with its rollouts."""

    from_policy_forward = True

    def load(self, policy: Policy, reference: Reference, directory: Path, precision: str) -> None:
        """Nothing to do."""

    def logprobs(self, rollouts: Rollouts) -> Tensor:
        """Not used: `Policy.score` gives them."""
        raise NotImplementedError


@dataclass
class ReferenceBaseline(BaselineScorer):
    """The module's reference. Without a KL term, too, the reference is then loaded.

    Raises:
        InputError: there is no reference.
    """

    needs_reference = True
    reference: Reference | None = field(default=None, init=False, repr=False)

    def check(self, reference: Reference) -> None:
        """See `BaselineScorer`."""
        if not reference.available:
            raise InputError(
                "baseline_scorer is ReferenceBaseline, but there is no reference. Set reference, for instance to "
                "FrozenReference, or baseline_scorer to PolicyBaseline."
            )

    def load(self, policy: Policy, reference: Reference, directory: Path, precision: str) -> None:
        """See `BaselineScorer`."""
        reference.load(policy)
        self.reference = reference

    def logprobs(self, rollouts: Rollouts) -> Tensor:
        """See `BaselineScorer`."""
        assert self.reference is not None, "load first"
        return self.reference.logprobs(rollouts.empty_traces())[:, 1:]  # [B, T] without the marker


class InitialModel(FrozenReference):
    """The policy before training, whole in every process: each scores the rows whose values it lacks."""

    def layout(self, policy: Policy) -> Sharding:
        """See `FrozenReference`."""
        return NoSharding()


@dataclass
class InitialBaseline(BaselineScorer):
    """The policy before training, computed once for each row and kept on disk: RLPR's choice (arXiv 2506.18254).

    The directory is `baselines/MODEL-PRECISION` under the trainer's `default_root_dir`, MODEL being a digest of the
    initial weights; a row's key is a digest of its encoded prompt and answer and of the marker. So another model, row
    or template has other keys, and is scored anew. A second copy of the model is read when the first row is met whose
    value is not on disk: with all values there, none is read.
    """

    initial: FrozenReference = field(default_factory=InitialModel, init=False, repr=False)
    policy: list[Policy] = field(default_factory=list, init=False, repr=False)  # a list: never a submodule
    cache: AnswerCache | None = field(default=None, init=False, repr=False)

    def load(self, policy: Policy, reference: Reference, directory: Path, precision: str) -> None:
        """See `BaselineScorer`."""
        if self.cache is not None:
            return
        with policy.gathered():
            place = directory / "baselines" / f"{weights_digest(policy.network)}-{precision}"
        self.cache, self.policy = AnswerCache(place), [policy]
        log.info("baselines of %d rows are in %s", len(self.cache), place)
        if not policy.readable:
            self.initial.load(policy)  # these weights cannot be read again later

    def logprobs(self, rollouts: Rollouts) -> Tensor:
        """See `BaselineScorer`."""
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
        scored = self.initial.logprobs(rollouts.empty_traces())[:, 1:].float().cpu()  # [B, T]
        answers = [row[mask] for row, mask in zip(scored, rollouts.answer_mask.cpu(), strict=True)]
        self.cache.add({key: row for key, row in zip(keys, answers, strict=True) if key not in self.cache})


def row_keys(rollouts: Rollouts) -> list[str]:
    """A key for each prompt with its answer, of their token ids and the marker's. B of them."""
    marker = rollouts.marker_id.to_bytes(8, "big")
    prompts = (ids[mask] for ids, mask in zip(rollouts.prompt_ids.cpu(), rollouts.prompt_mask.cpu(), strict=True))
    answers = (ids[mask] for ids, mask in zip(rollouts.answer_ids.cpu(), rollouts.answer_mask.cpu(), strict=True))
    pairs = zip(prompts, answers, strict=True)
    return [digest(prompt.numpy().tobytes(), answer.numpy().tobytes(), marker) for prompt, answer in pairs]
