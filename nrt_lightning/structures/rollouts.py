"""Sampled traces with what follows them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nrt_lightning.structures.base import TensorStruct
from nrt_lightning.structures.conditioning import Conditioning
from nrt_lightning.structures.results import Credit, Scores
from nrt_lightning.structures.steps import Steps


@dataclass
class Segments(TensorStruct):
    """The kind of each token of a completion."""

    trace_mask: Tensor  # [N, C]
    marker_mask: Tensor  # [N, C]
    answer_mask: Tensor  # [N, C]
    marker_emitted: Tensor  # [N] True where the policy wrote the marker itself, False where it was forced

    @property
    def completion_mask(self) -> Tensor:
        """Every token of the completion that is no padding, [N, C]."""
        return self.trace_mask | self.marker_mask | self.answer_mask

    def only(self, rows: Tensor | None) -> Segments:
        """The segments without the tokens of rows that are False, [N]; all of them with None."""
        if rows is None:
            return self
        kept = rows.unsqueeze(1)  # [N, 1]
        return Segments(self.trace_mask & kept, self.marker_mask & kept, self.answer_mask & kept, self.marker_emitted)


@dataclass
class PolicyAnswers(TensorStruct):
    """The answers that the policy wrote after each trace and marker, emitted or forced."""

    ids: Tensor  # [N, W] right-padded, with the end token where there is one
    mask: Tensor  # [N, W]
    ended: Tensor  # [N] False where the limit cut it


@dataclass
class Rollouts(TensorStruct):
    """Completions of a micro-batch, rows of a group side by side.

    A completion is trace + marker + answer. The answer is the reference answer in `Prompts.rollouts`, and the one that
    the policy wrote in `Prompts.responses`, where it counts as part of the trace.
    """

    prompt_ids: Tensor  # [B, P] left-padded
    prompt_mask: Tensor  # [B, P]
    answer_ids: Tensor  # [B, T]
    answer_mask: Tensor  # [B, T]
    completion_ids: Tensor  # [N, C] right-padded
    segments: Segments
    group_ids: Tensor  # [N] row of the prompt, 0..B-1, ascending
    truncated: Tensor  # [N] True where the trace reached its limit
    marker_ids: tuple[int, ...]  # the usual tokens of the marker, written where it is forced
    sampling_logprobs: Tensor | None = None  # [N, C] of the sampled tokens under the sampling distribution
    weights_version: int | None = None  # which weights sent to an engine wrote the traces; None: the policy's own
    policy_answers: PolicyAnswers | None = None  # N of them, where signals or training ask for them
    signal_values: dict[str, Tensor] = field(default_factory=dict)  # [N] each: signals measured right after sampling
    overrun: Tensor | None = None  # [N] True where a token reached beyond the marker's text, which was then forced
    end_ids: Tensor | None = None  # [N] the token that ended a trace without marker, -1 where none did
    old_scores: Scores | None = None  # of the old policy, made before the first optimizer step; None: on-policy
    temperature: float = 1.0  # of the sampling distribution; log-probs of traces and markers are under it
    conditioning: Conditioning | None = None  # of traces drawn with the answer in the prompt; None: none was
    steps: Steps | None = None  # of the traces, for credit by step; None: credit is by trace
    credit: Credit | None = None  # where it was assigned over the whole window; None: assigned in the training step

    def __len__(self) -> int:
        return self.completion_ids.shape[0]

    @property
    def length(self) -> int:
        """Tokens of the longest sequence, prompt and completion, with padding: P + C."""
        return self.prompt_ids.shape[1] + self.completion_ids.shape[1]

    @property
    def scales(self) -> Tensor | None:
        """What the logits of each token are multiplied by, [N, C]: 1 / temperature for traces and markers, 1 for
        answers. None if it is 1 for all."""
        if self.temperature == 1.0:
            return None
        answers = self.segments.answer_mask
        return torch.where(answers, 1.0, 1.0 / self.temperature)

    def select(self, prompts: Tensor, rows: Tensor) -> Rollouts:
        """The rollouts `rows` [n], which belong to `prompts` [b], both ascending; padding is cut to what they need."""

        def leading(mask: Tensor) -> int:
            return max(1, int(mask.any(dim=0).sum()))

        completion = leading(self.segments.completion_mask[rows])
        answer, prompt = leading(self.answer_mask[prompts]), leading(self.prompt_mask[prompts])

        def by_row(tensor: Tensor) -> Tensor:  # [N, C] -> [n, c], [N] -> [n]
            return tensor[rows] if tensor.dim() == 1 else tensor[rows, :completion]

        def optional(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else by_row(tensor)

        scores = self.old_scores
        if scores is not None:
            baseline = scores.baseline_logprobs
            baseline = None if baseline is None else baseline[prompts, :answer]
            ref_logprobs = optional(scores.ref_logprobs)
            scores = Scores(by_row(scores.logprobs), by_row(scores.entropy), baseline, ref_logprobs)
        credit = self.credit
        if credit is not None:
            reward = credit.reward.apply(lambda tensor: tensor[rows] if tensor.dim() == 1 else tensor[rows, :answer])
            credit = dataclasses.replace(credit, reward=None).apply(by_row)  # type: ignore[arg-type]
            credit.reward = reward
        answers, conditioning = self.policy_answers, self.conditioning
        return dataclasses.replace(
            self,
            prompt_ids=self.prompt_ids[prompts, -prompt:],
            prompt_mask=self.prompt_mask[prompts, -prompt:],
            answer_ids=self.answer_ids[prompts, :answer],
            answer_mask=self.answer_mask[prompts, :answer],
            completion_ids=self.completion_ids[rows, :completion],
            segments=self.segments.apply(by_row),
            group_ids=torch.searchsorted(prompts, self.group_ids[rows]),
            truncated=self.truncated[rows],
            sampling_logprobs=optional(self.sampling_logprobs),
            policy_answers=None if answers is None else answers.apply(lambda tensor: tensor[rows]),
            signal_values={name: value[rows] for name, value in self.signal_values.items()},
            overrun=optional(self.overrun),
            end_ids=optional(self.end_ids),
            old_scores=scores,
            conditioning=None if conditioning is None else conditioning.select(prompts, rows, completion),
            steps=None if self.steps is None else self.steps.apply(lambda tensor: tensor[rows]),
            credit=credit,
        )

    @property
    def direct_answers(self) -> slice:
        """The columns of the answers in the completions of `empty_traces`."""
        return slice(len(self.marker_ids), None)

    def empty_traces(self) -> Rollouts:
        """One completion a prompt without a trace: marker + answer. Its answer log-probs are the baseline."""
        count, device, width = self.prompt_ids.shape[0], self.prompt_ids.device, len(self.marker_ids)  # B, M
        marker = torch.tensor(self.marker_ids, device=device).expand(count, -1)  # [B, M]
        none = torch.zeros(count, width + self.answer_ids.shape[1], dtype=torch.bool, device=device)  # [B, M + T]
        first = none.clone()
        first[:, :width] = True
        return Rollouts(
            prompt_ids=self.prompt_ids,
            prompt_mask=self.prompt_mask,
            answer_ids=self.answer_ids,
            answer_mask=self.answer_mask,
            completion_ids=torch.cat([marker, self.answer_ids], dim=1),
            segments=Segments(
                trace_mask=none,
                marker_mask=first,
                answer_mask=torch.cat([none[:, :width], self.answer_mask], dim=1),
                marker_emitted=torch.zeros(count, dtype=torch.bool, device=device),
            ),
            group_ids=torch.arange(count, device=device),
            truncated=torch.zeros(count, dtype=torch.bool, device=device),
            marker_ids=self.marker_ids,
        )
