"""Prompts as the policy reads them, and its best and worst traces, as text to read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.evaluation.probe import Probe
from nrt_lightning.models import Policy
from nrt_lightning.signals.base import decode
from nrt_lightning.structures import Prompts

MOST_LINES, MOST_CHARACTERS = 40, 3000  # of a text that is shown


@dataclass
class PromptExample:
    """One row as the policy reads it."""

    origin: str  # file and line
    prompt: str  # with special tokens
    answer: str  # with special tokens

    def __str__(self) -> str:
        return f"{self.origin}\n{quoted(self.prompt)}\n  reference answer: {shown(self.answer)}"


@dataclass
class TraceExample:
    """One trace with what follows it."""

    trace: str
    reward: float
    ended: str
    answer: str  # that the policy wrote after it
    right: bool

    def __str__(self) -> str:
        verdict = "right" if self.right else "wrong"
        return f"reward {self.reward:.3g}, {self.ended}, answer {shown(self.answer)} ({verdict})\n{quoted(self.trace)}"


@dataclass
class GroupExample:
    """The best and the worst trace of one row, by the method's reward."""

    origin: str
    answer: str  # the reference answer
    traces: int
    best: TraceExample
    worst: TraceExample

    def __str__(self) -> str:
        head = f"{self.origin}: reference answer {shown(self.answer)}"
        return f"{head}\n  best of {self.traces}: {self.best}\n  worst: {self.worst}"


def prompt_examples(policy: Policy, prompts: Prompts, count: int) -> list[PromptExample]:
    """The first rows of a batch as the policy reads them."""
    found = []
    for index in range(min(count, len(prompts))):
        ids = prompts.prompt_ids[index][prompts.prompt_mask[index]]
        answer = prompts.answer_ids[index][prompts.answer_mask[index]]
        texts = policy.tokenizer.batch_decode([ids.tolist(), answer.tolist()])
        found.append(PromptExample(origin(prompts, index), *texts))
    return found


def group_examples(policy: Policy, prompts: Prompts, seen: Probe, reward: Tensor, count: int) -> list[GroupExample]:
    """The best and worst traces of the first rows of a batch.

    Args:
        policy: that wrote them.
        prompts: R rows.
        seen: their traces.
        reward: [R, K]
        count: how many rows.
    """
    rollouts, found = seen.batch.sampled, []
    traces = decode(policy, rollouts.completion_ids, rollouts.segments.trace_mask)
    written = decode(policy, seen.answers.token_ids, seen.answers.token_mask)
    group_size = reward.shape[1]
    for index in range(min(count, len(prompts))):
        known = reward[index].nan_to_num(nan=-torch.inf)  # [K]

        def example(n: int, known: Tensor = known, first: int = index * group_size) -> TraceExample:
            emitted = bool(rollouts.segments.marker_emitted[first + n])
            end = "ended by the marker" if emitted else (
                "ended by the end token" if bool(seen.traces.stopped[first + n]) else "cut at the limit"
            )  # fmt: skip
            return TraceExample(traces[first + n], float(known[n]), end, written[first + n].strip(),
                                bool(seen.right[first + n]))  # fmt: skip

        answer = prompts.rows[index].answer if prompts.rows else None
        if answer is None:
            [answer] = decode(policy, prompts.answer_ids[index : index + 1], prompts.answer_mask[index : index + 1])
        best, worst = example(int(known.argmax())), example(int(known.argmin()))
        found.append(GroupExample(origin(prompts, index), answer, group_size, best, worst))
    return found


def origin(prompts: Prompts, index: int) -> str:
    """File and line of a row, or its number."""
    row = prompts.rows[index] if prompts.rows else None
    return (row.origin or f"row {row.id}") if row is not None else f"row {index + 1}"


def quoted(text: str) -> str:
    """A text on lines of its own. What is left out of a long one is counted.

    >>> print(quoted("a\\nb"))
      | a
      | b
    >>> print(quoted(50 * "x\\n").splitlines()[-1])
      | ... (21 more characters)
    """
    kept = "\n".join(text[:MOST_CHARACTERS].split("\n")[:MOST_LINES])
    rest = len(text) - len(kept)
    lines = visible(kept).split("\n") + ([f"... ({rest} more characters)"] if rest else [])
    return "\n".join(f"  | {line}" for line in lines)


def shown(text: str) -> str:
    """A text on one line, in quotes; a long one is cut."""
    quote = repr(text)
    return quote if len(quote) <= 80 else f"{quote[:70]}...{quote[0]} ({len(text)} characters)"


def visible(text: str) -> str:
    """A text without control characters other than line feeds, which could change a terminal.

    >>> visible("a\\x1b[31m\\tb")
    'a\\\\x1b[31m\\tb'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)
