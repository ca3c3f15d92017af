"""Traces that were drawn with the answer in the prompt."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nrt_lightning.structures.base import TensorStruct


@dataclass
class Conditioning(TensorStruct):
    """Which of N traces were drawn with the answer in the prompt, and what the loss needs to know of it."""

    drawn: Tensor  # [N] True: with the answer in the prompt
    share: Tensor  # [N] fraction of the traces of its group that were
    contains: Tensor  # [N] the trace holds the whole answer
    copied: Tensor  # [N] fraction of the trace's tokens that lie in n-grams of the answer
    refused: Tensor  # [N] True: carries no loss, because it copies the answer
    prompt_ids: Tensor  # [B, P] left-padded, with the answer
    prompt_mask: Tensor  # [B, P]
    logprobs: Tensor | None = None  # [N, C] after these prompts, by the policy that wrote the traces

    def select(self, prompts: Tensor, rows: Tensor, width: int = 0) -> Conditioning:
        """The rows [n] of these prompts [b], with log-probs of `width` columns where there are any."""
        logprobs = None if self.logprobs is None else self.logprobs[rows, :width]
        return Conditioning(
            drawn=self.drawn[rows],
            share=self.share[rows],
            contains=self.contains[rows],
            copied=self.copied[rows],
            refused=self.refused[rows],
            prompt_ids=self.prompt_ids[prompts],
            prompt_mask=self.prompt_mask[prompts],
            logprobs=logprobs,
        )
