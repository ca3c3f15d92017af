"""The choice among scoring forwards."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from torch import nn
from typing_extensions import override

from nrt_lightning.models.scoring.base import PromptCopies, ScoringForward
from nrt_lightning.models.scoring.packed_groups import PackedGroups
from nrt_lightning.models.scoring.prompt_tree import PromptTree
from nrt_lightning.models.scoring.self_check import DIFFERENCES, is_right
from nrt_lightning.models.scoring.shared_prompt import SharedPrompt
from nrt_lightning.structures import Rollouts, Scores

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

WRONG: WeakKeyDictionary[nn.Module, set[type]] = WeakKeyDictionary()  # scoring forwards that are wrong, by model


@dataclass(frozen=True)
class BestScoring(ScoringForward):
    """The first of `PackedGroups`, `SharedPrompt`, `PromptTree` and `PromptCopies` that the model allows.

    All give the same results, at increasing cost. The first use compares the chosen one with plain forward passes; one
    that is wrong for a model is not used.

    Raises:
        InputError: none is right.
    """

    @override
    def choose(self, model: PreTrainedModel, length: int) -> ScoringForward:
        for scoring in (PackedGroups(), SharedPrompt(), PromptTree()):
            reason = scoring.refusal(model, length)
            if reason is None and type(scoring) not in WRONG.get(model, ()):
                return scoring
            if reason is not None:
                log_once(f"{type(scoring).__name__} is not used: {reason}")
        return PromptCopies()

    @override
    def __call__(self, model: PreTrainedModel, rollouts: Rollouts, *, baseline: bool = False) -> Scores:
        scoring = self.choose(model, rollouts.length)
        while not is_right(model, scoring):
            log.warning(
                "%s is not used: for %s its log-probs differ from those of a plain forward pass by %.2g nats.",
                type(scoring).__name__, type(model).__name__, DIFFERENCES[model][type(scoring)],
            )  # fmt: skip
            WRONG.setdefault(model, set()).add(type(scoring))
            scoring = self.choose(model, rollouts.length)
        return scoring(model, rollouts, baseline=baseline)


@cache
def log_once(message: str) -> None:
    """Log a message at its first occurrence."""
    log.info(message)
