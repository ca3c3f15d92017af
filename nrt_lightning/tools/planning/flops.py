"""Floating-point operations of a batch: matrix products, with two operations per weight and token."""

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
    """FLOPs of a model on a batch."""

    skeleton: Skeleton
    widths: Widths
    lengths: Lengths

    def forward(self, tokens: float, scored: int, pairs: float) -> float:
        """FLOPs of a forward pass.

        Args:
            tokens: number of tokens through the layers.
            scored: number of positions through the output head.
            pairs: number of pairs of a token and a token that it attends to.
        """
        attention = 4 * self.widths.heads * self.widths.head_size * self.skeleton.layers * pairs
        return 2.0 * (tokens * self.skeleton.matrices + scored * self.skeleton.head) + attention

    def sampling(self) -> float:
        """FLOPs of the rollout: every prompt once, then one token of every completion at a time."""
        x = self.lengths
        decoded = x.rollouts * (x.trace - 1)
        pairs = x.prompts * x.prompt**2 + decoded * (x.prompt + x.trace / 2)
        return self.forward(x.prompts * x.prompt + decoded, x.prompts + decoded, pairs)

    def learning(self, needs: Needs, parts: float, *, baseline: bool, reference: bool) -> dict[str, float]:
        """FLOPs of the forward pass, the backward pass and scoring without gradient.

        Args:
            needs: of one micro-batch.
            parts: number of micro-batches.
            baseline: True if the answers are also scored after the empty trace.
            reference: True if a second model scores the completions.
        """
        x = self.lengths
        scored = x.rollouts * x.completion
        pairs = x.prompts * x.prompt**2 + scored * (x.prompt + x.completion)
        forward = self.forward(needs.tokens * parts, scored, pairs)
        frozen = self.skeleton.frozen_fraction  # these weights need no gradient
        again = forward if self.skeleton.recomputed else 0.0
        if scored / parts * self.widths.vocabulary > DENSE:  # logits are recomputed
            again += 2.0 * scored * self.skeleton.head
        without_gradient = scored * reference + x.prompts * x.answer * baseline
        scoring = self.forward(needs.tokens_without_gradient * parts, without_gradient, pairs * reference)
        return {"forward": forward, "backward": forward * (2 - frozen) + again, "baseline and reference": scoring}
