"""What travels between the stages of a training step: dataclasses of tensors, with shapes on their fields.

Shapes: B prompts, K group size, N = B * K rollouts, P prompt length, C completion length, T answer length.
Masks are bool and True means "counts". Row n of a `[N, ...]` tensor belongs to prompt `group_ids[n]`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

Struct = TypeVar("Struct", bound="TensorStruct")


@dataclass
class TensorStruct:
    """A dataclass whose tensors move together; a trainer moves it like one tensor."""

    def apply(self: Struct, fn: Callable[[Tensor], Tensor]) -> Struct:
        """A copy with `fn` applied to every tensor, in nested structures too."""

        def mapped(value: Any) -> Any:
            if isinstance(value, Tensor):
                return fn(value)
            if isinstance(value, dict):
                return {key: mapped(entry) for key, entry in value.items()}
            return value.apply(fn) if isinstance(value, TensorStruct) else value

        return dataclasses.replace(self, **{f.name: mapped(getattr(self, f.name)) for f in dataclasses.fields(self)})

    def to(self: Struct, *args: Any, **kwargs: Any) -> Struct:
        """A copy with every tensor moved, as `Tensor.to` would."""
        return self.apply(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self: Struct) -> Struct:
        """A copy in pinned memory, called by a `DataLoader` that pins."""
        return self.apply(Tensor.pin_memory)


@dataclass
class Row:
    """One question with its reference answer, as read from a source."""

    id: str
    messages: list[dict[str, str]]  # the conversation up to and with the question: {"role": ..., "content": ...}
    answer: str | None = None  # None where only prediction is wanted
    origin: str = ""  # where it was read, for errors: "train.jsonl:12"

    @property
    def question(self) -> str:
        """The text of the last turn before the answer."""
        return self.messages[-1]["content"]


@dataclass
class WindowStep:
    """The place of a micro-batch in its window: `index` of `size`, in round `epoch` of `epochs`.

    Every micro-batch of a window carries ALL prompts of the window; the rollout callback samples for them at once
    and hands out slice `index` of `size` at each step. The same rollouts are gone through `epochs` times.
    """

    index: int = 0
    size: int = 1
    epoch: int = 0
    epochs: int = 1

    @property
    def first(self) -> bool:
        """Whether the window begins here."""
        return self.index == 0 and self.epoch == 0


@dataclass
class Prompts(TensorStruct):
    """Questions and reference answers of one micro-batch (of one window where `window.size > 1`)."""

    prompt_ids: Tensor  # [B, P] left-padded
    prompt_mask: Tensor  # [B, P]
    answer_ids: Tensor  # [B, T] right-padded, ends with the end token; T = 0 without answers
    answer_mask: Tensor  # [B, T]
    rows: list[Row] = field(default_factory=list)  # B of them: the texts these ids came from
    window: WindowStep = field(default_factory=WindowStep)
    counted: Tensor | None = None  # [B] False for a row given again to even out processes in evaluation; None: all
    rollouts: Rollouts | None = None  # filled in place by OnPolicyRollout

    def __len__(self) -> int:
        return self.prompt_ids.shape[0]

    def select(self, start: int, stop: int) -> Prompts:
        """Prompts `start` to `stop`, as a new structure of one window step."""
        cut = self.apply(lambda tensor: tensor[start:stop])
        return dataclasses.replace(cut, rows=self.rows[start:stop], window=WindowStep(), rollouts=None)

    def share(self) -> Prompts:
        """The micro-batch's own prompts out of its window's."""
        size = len(self) // self.window.size
        return self.select(self.window.index * size, (self.window.index + 1) * size) if self.window.size > 1 else self


@dataclass
class Sampling:
    """How traces are drawn.

    Args:
        group_size: traces sampled for each prompt (K).
        max_trace_tokens: a trace that reaches this length without the marker is cut there and counted as truncated.
        max_answer_tokens: limit of an answer that the policy writes itself, in prediction or for training.
        temperature: of the sampling distribution; 0 is greedy.
        answer_temperature: of the answers that the policy writes itself in training; null for that of the traces.
        top_p: keep the smallest set of tokens with at least this probability; 1 keeps all.
        top_k: keep this many most probable tokens; 0 keeps all.
        suppress_eos: never sample the end token inside a trace. A base that ends its texts with it shares the
            marker's probability with it until it has learned the marker.
        refill_rounds: how often groups that were filtered are replaced by those of further rows, at most; 0 leaves
            them without a loss.
    """

    group_size: int = 8
    max_trace_tokens: int = 512
    max_answer_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    suppress_eos: bool = False
    answer_temperature: float | None = None
    refill_rounds: int = 0


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


@dataclass
class Scores(TensorStruct):
    """What a model says of rollouts."""

    logprobs: Tensor  # [N, C] of the completion's tokens, 0 at padding
    entropy: Tensor  # [N, C] of the distribution each token was drawn from, in nats, detached, 0 at padding
    baseline_logprobs: Tensor | None = None  # [B, T] of the answer after the empty trace, detached
    ref_logprobs: Tensor | None = None  # [N, C] of the completion's tokens under the reference, detached


@dataclass
class TraceReward(TensorStruct):
    """What an aggregation of the answer's confidences gives."""

    value: Tensor  # [N] the trace reward R
    token_weights: Tensor  # [N, T] alpha_i * c_i, 0 outside the answer
    signals: dict[str, Tensor] = field(default_factory=dict)  # [N] each: what `value` was combined from


@dataclass
class Judgement(TensorStruct):
    """What the traces of a batch are worth. All detached."""

    old_logprobs: Tensor  # [N, C] of the policy that sampled them
    reward: TraceReward
    baseline: Tensor | None  # [N] the empty trace's reward for the same rows, where it is known
    advantages: Tensor  # [N]
    token_weights: Tensor  # [N, C] of the answer term


@dataclass
class LossOutput:
    """A loss with its parts, each a scalar."""

    loss: Tensor
    terms: dict[str, Tensor]  # each before its coefficient, detached
    metrics: dict[str, Tensor] = field(default_factory=dict)  # clip share and the like, detached
