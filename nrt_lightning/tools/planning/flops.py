"""The work of a batch in floating-point operations: matrix products, two operations for every weight and token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nrt_lightning.models.scoring.base import DENSE

if TYPE_CHECKING:
    from nrt_lightning.tools.planning.miniature import Needs
    from nrt_lightning.tools.planning.sizes import Lengths, Widths
    from nrt_lightning.tools.planning.sketch import Skeleton


@dataclass(frozen=True)
class Work:
    """A model and the lengths of a batch."""

    skeleton: Skeleton
    widths: Widths
    lengths: Lengths

    def forward(self, tokens: float, scored: int, pairs: float) -> float:
        """A forward pass.

        Args:
            tokens: through the layers.
            scored: positions at which the output head is asked.
            pairs: of a token and one that it attends to.
        """
        attention = 4 * self.widths.heads * self.widths.head_size * self.skeleton.layers * pairs
        return 2.0 * (tokens * self.skeleton.matrices + scored * self.skeleton.head) + attention

    def sampling(self) -> float:
        """The rollout: every prompt once, then a token of every completion at a time."""
        x = self.lengths
        decoded = x.rollouts * (x.trace - 1)
        pairs = x.prompts * x.prompt**2 + decoded * (x.prompt + x.trace / 2)
        return self.forward(x.prompts * x.prompt + decoded, x.prompts + decoded, pairs)

    def learning(self, needs: Needs, parts: float, baseline: bool, reference: bool) -> dict[str, float]:
        """Forward and backward pass, and what is scored without gradient.

        Args:
            needs: of one part of the batch.
            parts: of the batch.
            baseline: whether the answers are scored after the empty trace too.
            reference: whether a second model scores the completions.
        """
        x = self.lengths
        scored = x.rollouts * x.completion
        pairs = x.prompts * x.prompt**2 + scored * (x.prompt + x.completion)
        forward = self.forward(needs.tokens * parts, scored, pairs)
        frozen = self.skeleton.frozen_share  # no gradient is needed for these, only through them
        again = forward if self.skeleton.recomputed else 0.0
        if scored / parts * self.widths.vocabulary > DENSE:  # logits that are not kept
            again += 2.0 * scored * self.skeleton.head
        aside = scored * reference + x.prompts * x.answer * baseline
        scoring = self.forward(needs.tokens_without_gradient * parts, aside, pairs * reference)
        return {"forward": forward, "backward": forward * (2 - frozen) + again, "baseline and reference": scoring}
