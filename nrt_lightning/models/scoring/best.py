"""The choice among scoring forwards."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

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

    All give the same results; each is dearer than the one before.
    """

    def __call__(self, model: PreTrainedModel, rollouts: Rollouts, baseline: bool = False) -> Scores:
        """See `ScoringForward`."""
        return choose(model, rollouts.length)(model, rollouts, baseline)


def choose(model: PreTrainedModel, length: int) -> ScoringForward:
    """The cheapest scoring forward that the model allows for sequences this long; said where it is not the best."""
    for scoring in (PackedGroups(), SharedPrompt(), PromptTree()):
        reason = scoring.refusal(model, length)
        if reason is None:
            return scoring
        say(f"prompts are not scored by {type(scoring).__name__}: {reason}")
    return PromptCopies()


@cache
def say(message: str) -> None:
    """Log a message the first time it comes up."""
    log.info(message)
