"""Sampled traces with what follows them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nrt_lightning.structures.base import TensorStruct


@dataclass
class Segments(TensorStruct):
    """Which token of a completion is what."""

    trace_mask: Tensor  # [N, C]
    marker_mask: Tensor  # [N, C]
    answer_mask: Tensor  # [N, C]
    marker_emitted: Tensor  # [N] True where the policy wrote the marker itself, False where it was forced

    @property
    def completion_mask(self) -> Tensor:
        """Every real token of the completion, [N, C]."""
        return self.trace_mask | self.marker_mask | self.answer_mask

    def only(self, rows: Tensor | None) -> Segments:
        """Without the tokens of the rows that are False, [N]; all with None."""
        if rows is None:
            return self
        kept = rows.unsqueeze(1)  # [N, 1]
        return Segments(self.trace_mask & kept, self.marker_mask & kept, self.answer_mask & kept, self.marker_emitted)


@dataclass
class OwnAnswers(TensorStruct):
    """What the policy itself wrote after each trace and marker, emitted or forced."""

    ids: Tensor  # [N, W] right-padded, with the end token where there is one
    mask: Tensor  # [N, W]
    ended: Tensor  # [N] False where the limit cut it


@dataclass
class Rollouts(TensorStruct):
    """Completions (trace + marker + answer) of a micro-batch, rows of a group side by side."""

    prompt_ids: Tensor  # [B, P] left-padded
    prompt_mask: Tensor  # [B, P]
    answer_ids: Tensor  # [B, T]
    answer_mask: Tensor  # [B, T]
    completion_ids: Tensor  # [N, C] right-padded
    segments: Segments
    group_ids: Tensor  # [N] row of the prompt, 0..B-1, ascending
    truncated: Tensor  # [N] True where the trace reached its limit
    marker_id: int
    sampling_logprobs: Tensor | None = None  # [N, C] of the sampled tokens under the sampling distribution
    old_logprobs: Tensor | None = None  # [N, C] None: on-policy, the training forward's own values serve
    baseline_logprobs: Tensor | None = None  # [B, T] answer after the empty trace; None: scored when needed
    ref_logprobs: Tensor | None = None  # [N, C] under the reference; None: scored when needed
    advantages: Tensor | None = None  # [N] where they were found over the whole window; None: found in the step
    learned: Tensor | None = None  # [N] False: carries no loss (its group was filtered, or it is masked); None: all do
    own_answers: OwnAnswers | None = None  # N of them, where signals or training ask for them
    measured: dict[str, Tensor] = field(default_factory=dict)  # [N] each: signals measured when these were written
    weights_version: int | None = (
        None  # which of the weights sent to an engine wrote the traces; None: the policy's own
    )
    answered: Rollouts | None = None  # where these are responses: the same traces with the reference answer

    @property
    def judged(self) -> Rollouts:
        """The traces with the reference answer, which give the reward: these, unless these are responses."""
        return self if self.answered is None else self.answered

    def __len__(self) -> int:
        return self.completion_ids.shape[0]

    @property
    def length(self) -> int:
        """Tokens of the longest sequence, prompt and completion, with padding: P + C."""
        return self.prompt_ids.shape[1] + self.completion_ids.shape[1]

    @property
    def loss_segments(self) -> Segments:
        """Which token is what, of the rollouts that carry a loss."""
        return self.segments.only(self.learned)

    def select(self, prompts: Tensor, rows: Tensor) -> Rollouts:
        """The rollouts `rows` [n], which are those of `prompts` [b], both ascending; only as wide as they need."""

        def leading(mask: Tensor) -> int:
            return max(1, int(mask.any(dim=0).sum()))

        segments = self.segments.apply(lambda tensor: tensor[rows])
        completion = leading(segments.completion_mask)
        answer, prompt = leading(self.answer_mask[prompts]), leading(self.prompt_mask[prompts])

        def cut(tensor: Tensor | None) -> Tensor | None:  # [N, C] -> [n, c], [N] -> [n]
            return None if tensor is None else tensor[rows] if tensor.dim() == 1 else tensor[rows, :completion]

        return dataclasses.replace(
            self,
            prompt_ids=self.prompt_ids[prompts, -prompt:],
            prompt_mask=self.prompt_mask[prompts, -prompt:],
            answer_ids=self.answer_ids[prompts, :answer],
            answer_mask=self.answer_mask[prompts, :answer],
            completion_ids=self.completion_ids[rows, :completion],
            segments=segments.apply(lambda tensor: tensor[:, :completion] if tensor.dim() == 2 else tensor),
            group_ids=torch.searchsorted(prompts, self.group_ids[rows]),
            truncated=self.truncated[rows],
            sampling_logprobs=cut(self.sampling_logprobs),
            old_logprobs=cut(self.old_logprobs),
            baseline_logprobs=None if self.baseline_logprobs is None else self.baseline_logprobs[prompts, :answer],
            own_answers=None if self.own_answers is None else self.own_answers.apply(lambda tensor: tensor[rows]),
            measured={name: value[rows] for name, value in self.measured.items()},
            answered=None if self.answered is None else self.answered.select(prompts, rows),
            ref_logprobs=cut(self.ref_logprobs),
            advantages=cut(self.advantages),
            learned=cut(self.learned),
        )

    def empty_traces(self) -> Rollouts:
        """One completion a prompt without a trace: marker + answer. Its answer log-probs are the baseline."""
        count, device = self.prompt_ids.shape[0], self.prompt_ids.device
        marker = torch.full((count, 1), self.marker_id, device=device)  # [B, 1]
        none = torch.zeros(count, 1 + self.answer_ids.shape[1], dtype=torch.bool, device=device)  # [B, 1 + T]
        first = none.clone()
        first[:, 0] = True
        return dataclasses.replace(
            self,
            completion_ids=torch.cat([marker, self.answer_ids], dim=1),
            segments=Segments(
                trace_mask=none,
                marker_mask=first,
                answer_mask=torch.cat([none[:, :1], self.answer_mask], dim=1),
                marker_emitted=torch.zeros(count, dtype=torch.bool, device=device),
            ),
            group_ids=torch.arange(count, device=device),
            truncated=torch.zeros(count, dtype=torch.bool, device=device),
            sampling_logprobs=None,
            old_logprobs=None,
            baseline_logprobs=None,
            own_answers=None,
            measured={},
            answered=None,
            ref_logprobs=None,
            advantages=None,
            learned=None,
        )
