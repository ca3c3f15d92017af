"""Answers to questions, and metrics of each."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from nrt_lightning.errors import InputError
from nrt_lightning.evaluation.answered import AnsweredQuestion, SampledAnswer
from nrt_lightning.evaluation.evaluate import texts_of
from nrt_lightning.evaluation.probe import repeat
from nrt_lightning.functional import pack_segment
from nrt_lightning.functional.validation import check_at_least, check_fraction
from nrt_lightning.models import Policy
from nrt_lightning.rollouts import Generations, RolloutEngine, assemble, direct_answers, write_answers
from nrt_lightning.rollouts.answering import write_directly
from nrt_lightning.signals import ExactMatch, RolloutText, TextSignal
from nrt_lightning.signals.failures import guarded
from nrt_lightning.structures import Prompts, Row, Sampling

LIMITS = ("max_trace_tokens", "max_answer_tokens")
Metrics = TextSignal | list[TextSignal] | dict[str, TextSignal] | None


@dataclass(frozen=True)
class AnswerSettings:
    """How many answers are written, and how.

    Args:
        samples: answers to each question, K.
        temperature: of the sampling distribution; 0 is greedy; null for 0 with one answer and 1 with several.
        top_p: keep the smallest set of tokens with at least this probability; 1 keeps all.
        top_k: keep this many most probable tokens; 0 keeps all.
        max_trace_tokens: longer traces are cut, and the marker forced; null for the limit of the run, or 512.
        max_answer_tokens: longer answers are cut, and count as wrong; null for the limit of the run, or 256.
        seed: of the random draws, which follow from it, the question and the number of the answer.
        confidence: also score the reference answers after the traces and after the empty trace.

    Raises:
        InputError: a number is out of range, or several answers would be equal.
    """

    samples: int = 1
    temperature: float | None = None
    top_p: float = 1.0
    top_k: int = 0
    max_trace_tokens: int | None = None
    max_answer_tokens: int | None = None
    seed: int = 0
    confidence: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        for name, least in (("samples", 1), ("temperature", 0), ("top_k", 0), ("max_trace_tokens", 0),
                            ("max_answer_tokens", 1)):  # fmt: skip
            if (value := getattr(self, name)) is not None:
                check_at_least(name, value, least)
        check_fraction("top_p", self.top_p, above=True)
        if self.samples > 1 and self.temperature == 0:
            raise InputError(f"samples={self.samples} with temperature=0.0: all answers to a question would be equal. "
                             "Set temperature above 0, or samples=1.")  # fmt: skip
        if self.samples > 1 and self.top_k == 1:
            raise InputError(f"samples={self.samples} with top_k=1: all answers to a question would be equal. Set "
                             "top_k above 1, or samples=1.")  # fmt: skip

    def sampling(self, limits: Mapping[str, int]) -> Sampling:
        """The settings, with the limits of the run where none is given."""
        given = {name: limit for name in LIMITS if (limit := getattr(self, name)) is not None}
        temperature = float(self.samples > 1) if self.temperature is None else self.temperature
        plain = Sampling(group_size=self.samples, temperature=temperature, top_p=self.top_p, top_k=self.top_k)
        return dataclasses.replace(plain, **{**limits, **given})


@dataclass
class Questionnaire:
    """Lets a policy answer questions, and measures the answers.

    Args:
        policy: loaded.
        engine: samples.
        sampling: `group_size` answers to each question.
        metrics: by name.
        seed: of the random draws.
        confidence: score the reference answers too.
        writes_traces: False for a policy that answers at once.
    """

    policy: Policy
    engine: RolloutEngine
    sampling: Sampling
    metrics: dict[str, TextSignal]
    seed: int = 0
    confidence: bool = field(default=True, kw_only=True)
    writes_traces: bool = field(default=True, kw_only=True)

    def answer(self, prompts: Prompts) -> list[AnsweredQuestion]:
        """Answers to B questions. They do not depend on the other questions of the batch, up to rounding."""
        count, policy = self.sampling.group_size, self.policy
        with policy.evaluating():
            many = repeat(prompts, count)  # N = B * K questions
            answers, traces, texts, emitted = self._write(many)
            after, without = self._score(prompts, traces)
        read = texts_of(policy, many, texts, emitted, answers)
        values = {name: self._values(name, metric, read) for name, metric in self.metrics.items()}
        tokens = None if traces is None else traces.lengths.tolist()
        sampled = [
            SampledAnswer(
                text.trace if tokens else None, text.policy_answer, text.marker_emitted if tokens else None,
                text.policy_answer_ended, tokens[n] if tokens else None,
                {name: values[name][n] for name in values}, None if after is None else after[n],
            )
            for n, text in enumerate(read)
        ]  # fmt: skip
        return [
            AnsweredQuestion(
                row.id, row.question, row.answer, sampled[b * count : (b + 1) * count],
                None if without is None else without[b],
            )
            for b, row in enumerate(prompts.rows)
        ]  # fmt: skip

    def _write(self, many: Prompts) -> tuple[Generations, Generations | None, list[str], list[bool]]:
        """Answers, traces, texts of the traces, and whether the marker was emitted."""
        limit = self.sampling.max_answer_tokens
        if not self.writes_traces:
            answers = write_directly(self.policy, self.engine, many, limit, self.sampling, self.seed)
            return answers, None, [""] * len(many), [True] * len(many)
        written = write_answers(self.policy, self.engine, many, self.sampling, limit, self.seed)
        return written.answers, written.traces, written.trace_texts, written.marker_emitted.tolist()

    def _score(self, prompts: Prompts, traces: Generations | None) -> tuple[list[float] | None, list[float] | None]:
        """Probabilities of the reference answers after the N traces, and after the B empty traces."""
        if not self.confidence:
            return None, None
        if traces is None:
            scores = self.policy.score(direct_answers(prompts, self.policy.markup))
            alone = probabilities(scores.logprobs, prompts.answer_mask)
            return [value for value in alone for _ in range(self.sampling.group_size)], None
        rollouts = assemble(prompts, traces, self.policy.markup)
        scores = self.policy.score(rollouts, baseline=True)
        assert scores.baseline_logprobs is not None
        packed = pack_segment(scores.logprobs, rollouts.segments.answer_mask, prompts.answer_ids.shape[1])  # [N, T]
        after = probabilities(packed, prompts.answer_mask[rollouts.group_ids])
        return after, probabilities(scores.baseline_logprobs, prompts.answer_mask)

    def _values(self, name: str, metric: TextSignal, texts: list[RolloutText]) -> list[float | None]:
        like = torch.zeros(len(texts))
        values = guarded(name, partial(metric.read_all, texts), like, lambda n: repr(texts[n].row.id), "leave_out")
        return [value if math.isfinite(value) else None for value in values.tolist()]


def probabilities(logprobs: Tensor, mask: Tensor) -> list[float]:
    """Probabilities of whole answers, from the log-probs `[N, T]` of their tokens under a mask."""
    found: list[float] = logprobs.where(mask, 0).sum(dim=1).exp().tolist()
    return found


def named(metrics: Metrics) -> dict[str, TextSignal]:
    """Metrics by name: that of a mapping, or of their class in small letters; `ExactMatch` where none is given.

    Args:
        metrics: one, several, or a mapping of names to them.

    Raises:
        InputError: two have one name.

    >>> list(named(None)), list(named({"em": ExactMatch()}))
    (['exact_match'], ['em'])
    """
    if isinstance(metrics, Mapping):
        return dict(metrics)
    found: dict[str, TextSignal] = {}
    for metric in [metrics] if isinstance(metrics, TextSignal) else metrics or [ExactMatch()]:
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(metric).__name__).lower()
        if name in found:
            raise InputError(f"metrics: two are named {name!r}. Name them by a mapping: {{my_name: ...}}.")
        found[name] = metric
    return found


def check_references(rows: Sequence[Row], metrics: Mapping[str, TextSignal], *, confidence: bool = False) -> None:
    """Check that every row has the reference answer that metrics need.

    Raises:
        InputError: names the metric and the first row.
    """
    for name, metric in metrics.items():
        needed = metric.needs_reference_answer
        lacking = [row for row in rows if needed and (row.answer is None or metric.answer_key(row.answer) is None)]
        if lacking:
            row, kind = lacking[0], type(metric).__name__
            what = "has no answer" if row.answer is None else f"has the answer {row.answer[:60]!r}"
            raise InputError(
                f"metrics.{name}: {kind} compares with {metric.wanted} in the reference answer, but "
                f"{row.origin or repr(row.id)} {what} ({len(lacking)} of {len(rows)} rows). Name the column of the "
                "answers by `format`, or give other metrics."
            )
    unanswered = [row for row in rows if confidence and row.answer is None]
    if unanswered:
        raise InputError(
            f"confidence=true scores reference answers, but {unanswered[0].origin or repr(unanswered[0].id)} has none "
            f"({len(unanswered)} of {len(rows)} rows). Set confidence=false, or name the column of the answers by "
            "`format`."
        )


def distinct(rows: Sequence[Row]) -> list[Row]:
    """Rows with distinct ids, so that equal ones get different random draws, whatever their batch.

    >>> [row.id for row in distinct([Row("a", []), Row("b", []), Row("a", [])])]
    ['a', 'b', 'a#2']
    """
    taken = {row.id for row in rows}
    seen: dict[str, int] = {}
    found = []
    for row in rows:
        seen[row.id] = seen.get(row.id, 0) + 1
        name = row.id
        while seen[row.id] > 1 and name in taken:
            name += f"#{seen[row.id]}"
        taken.add(name)
        found.append(row if name == row.id else dataclasses.replace(row, id=name))
    return found
