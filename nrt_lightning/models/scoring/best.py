"""The choice among scoring forwards."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from typing_extensions import override

from nrt_lightning.models.scoring.base import PromptCopies, ScoringForward
from nrt_lightning.models.scoring.packed_groups import PackedGroups
from nrt_lightning.models.scoring.prompt_tree import PromptTree
from nrt_lightning.models.scoring.shared_prompt import SharedPrompt
from nrt_lightning.structures import Rollouts, Scores

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BestScoring(ScoringForward):
    """The first of `PackedGroups`, `SharedPrompt`, `PromptTree` and `PromptCopies` that the model allows.

    All give the same results, at increasing cost.
    """

    @override
    def choose(self, model: PreTrainedModel, length: int) -> ScoringForward:
        for scoring in (PackedGroups(), SharedPrompt(), PromptTree()):
            reason = scoring.refusal(model, length)
            if reason is None:
                return scoring
            log_once(f"{type(scoring).__name__} is not used: {reason}")
        return PromptCopies()

    @override
    def __call__(self, model: PreTrainedModel, rollouts: Rollouts, *, baseline: bool = False) -> Scores:
        return self.choose(model, rollouts.length)(model, rollouts, baseline=baseline)


@cache
def log_once(message: str) -> None:
    """Log a message at its first occurrence."""
    log.info(message)
