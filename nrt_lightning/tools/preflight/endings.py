"""How the policy ends its answers, compared with the end that is set for them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from nrt_lightning.rollouts import Generations
from nrt_lightning.structures import Prompts

OTHER = -1  # in place of a token, where the policy's answer is not the reference answer


@dataclass
class WrittenEnd:
    """What follows answers that have the tokens of the reference answer, whether they are ended by it or not."""

    answers: int
    confidence: float  # in the first token of the end that is set, mean over these answers
    text: str  # the token that the policy writes there most often
    share: float  # fraction of these answers that it follows


def end_places(prompts: Prompts, end_tokens: int) -> Tensor:
    """Where the end of the reference answers begins, [B].

    Args:
        prompts: B questions with their reference answers.
        end_tokens: tokens of the end.
    """
    return (prompts.answer_mask.sum(dim=1) - end_tokens).clamp(min=0)


def written_ends(prompts: Prompts, answers: Generations, end_tokens: int) -> Tensor:
    """The tokens that the policy wrote after reference answers, [B]; `OTHER` after other answers.

    Args:
        prompts: B questions with their reference answers.
        answers: of the policy to these questions.
        end_tokens: tokens of the end.
    """
    places, width = end_places(prompts, end_tokens), prompts.answer_ids.shape[1]  # [B], T
    room = max(width + 1 - answers.token_ids.shape[1], 0)
    ids = torch.nn.functional.pad(answers.token_ids, (0, room))  # [B, T + 1]
    mask = torch.nn.functional.pad(answers.token_mask.bool(), (0, room))  # [B, T + 1]
    before = torch.arange(width, device=ids.device) < places.unsqueeze(1)  # [B, T]
    same = ((ids[:, :width] == prompts.answer_ids) & mask[:, :width]) | ~before  # [B, T]
    place = places.unsqueeze(1)
    return ids.gather(1, place).where(same.all(dim=1, keepdim=True) & mask.gather(1, place), OTHER).squeeze(1)


def written_end(ends: Tensor, logprobs: Tensor, tokenizer: PreTrainedTokenizerBase) -> WrittenEnd | None:
    """The figures of all answers; None if none has the tokens of its reference answer.

    Args:
        ends: of `written_ends`, any shape.
        logprobs: of the first token of the end that is set, the same shape.
        tokenizer: of the policy.
    """
    known = ends != OTHER
    if not known.any():
        return None
    tokens, counts = ends[known].unique(return_counts=True)
    most = int(counts.argmax())
    return WrittenEnd(
        answers=int(known.sum()),
        confidence=float(logprobs[known].double().exp().mean()),
        text=str(tokenizer.decode([int(tokens[most])])),
        share=float(counts[most] / counts.sum()),
    )
