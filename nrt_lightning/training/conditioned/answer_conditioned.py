"""Settings of traces that are drawn with the answer in the prompt, and their prompts."""

from __future__ import annotations

import copy
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nrt_lightning.data.default_template import default_template
from nrt_lightning.data.plain_template import PlainTemplate
from nrt_lightning.data.templates import PromptTemplate
from nrt_lightning.errors import InputError
from nrt_lightning.functional.padding import pad_rows
from nrt_lightning.losses import HybridImportance
from nrt_lightning.randomness import counter_seed
from nrt_lightning.structures import Row
from nrt_lightning.training.conditioned.leak_guard import LeakGuard
from nrt_lightning.training.conditioned.shares import FixedShare, Share

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy

FOR_CHAT = (
    "{question}\n\nThe correct answer is: {answer}\n\nWrite the reasoning that leads to this answer, as if you did not "
    "know it."
)
FOR_PLAIN_TEXT = "{question}\nThe correct answer is {answer}."


@dataclass
class AnswerConditioned:
    """Draws a share of each group's traces with the answer in the prompt; all are trained under the question alone.

    A policy that rarely finds a useful trace finds one more easily if it knows the answer (STaR, arXiv 2203.14465;
    RAVR, 2510.25206; CoVRL, 2512.12576). Rewards, log-probs and the loss are those of the trace after the question.

    Args:
        share: fraction of the traces that see the answer: a number, or a `FixedShare`, `FallingShare`, `ShareByReward`.
        template: text in place of the question, with `{question}` and `{answer}` in it; it goes through the data's
            template. null for a default that suits chat models or plain texts.
        prompt: template of these prompts; null for that of the data.
        correction: importance weights of the traces, from the mixture to the policy under the question; null for none,
            as STaR and RAVR: traces that only the answer makes likely are then trained like others.
        leak_guard: measures, and optionally refuses, traces that copy the answer.
        wrong_answers: put the answer of another row into the prompt, the one that shares the fewest words with the
            row's own. A control: it must not help.

    Raises:
        InputError: the share is out of range, or the template has no place for question or answer.
    """

    share: float | Share = 0.5
    template: str | None = None
    prompt: PromptTemplate | None = None
    correction: HybridImportance | None = field(default_factory=HybridImportance)
    leak_guard: LeakGuard = field(default_factory=LeakGuard)
    wrong_answers: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        for place in ("{question}", "{answer}"):
            if self.template is not None and place not in self.template:
                raise InputError(
                    f"answer_conditioned.template={self.template!r} has no place for the "
                    f"{place[1:-1]}. Add {place} where it belongs."
                )
        self.schedule = self.share if isinstance(self.share, Share) else FixedShare(self.share)
        self.found: PromptTemplate | None = None  # the data's template

    def use(self, template: PromptTemplate | None) -> None:
        """Remember the template of the data."""
        self.found = template

    def counts(self, share: float, group_size: int, names: list[str], seed: int) -> list[int]:
        """The number of traces of each prompt that see the answer.

        Shares that are no whole number of traces are rounded up or down at random, so that their mean is the share.

        Args:
            share: from 0 to 1.
            group_size: traces of each prompt.
            names: of the prompts.
            seed: of the draws.
        """
        wanted = round(share * group_size, 6)
        chances = [counter_seed(seed, 0, 0, stream=f"share\n{name}") / 2**63 for name in names]
        return [min(int(wanted + chance), group_size) for chance in chances]

    def check_rows(self, rows: list[Row]) -> None:
        """Refuse rows without an answer.

        Raises:
            InputError: names the first one.
        """
        for row in rows:
            if row.answer is None or not row.answer.strip():
                raise InputError(
                    f"{row.origin or row.id}: the row has no answer, and answer_conditioned puts answers into prompts. "
                    "Remove the row, or set answer_conditioned to null."
                )

    def answers(self, rows: list[Row], seed: int) -> list[str]:
        """The answer that each row's prompt shows: its own, or with `wrong_answers` the most different of other rows.

        Raises:
            InputError: a row has no answer, or all rows have the same.
        """
        self.check_rows(rows)
        own = [row.answer or "" for row in rows]
        if not self.wrong_answers:
            return own
        if len(set(own)) < 2:
            raise InputError(
                f"answer_conditioned.wrong_answers needs different answers in a batch, and all {len(own)} rows have "
                f"{own[0]!r}. Raise data.batch_size or data.window."
            )
        start = 1 + counter_seed(seed, 0, 0, stream="wrong answers") % (len(own) - 1)
        turned = own[start:] + own[:start]
        return [most_different(answer, turned[n:] + turned[:n]) for n, answer in enumerate(own)]

    def prompts(self, policy: Policy, rows: list[Row], seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The prompts with the answer in them: ids and mask, both [B, P], left-padded."""
        tokenizer = policy.tokenizer
        template = (self.prompt or self.found or default_template(tokenizer, policy.markup)).with_markup(policy.markup)
        text = self.template or (FOR_PLAIN_TEXT if isinstance(template, PlainTemplate) else FOR_CHAT)
        changed = [with_answer(row, text, answer) for row, answer in zip(rows, self.answers(rows, seed), strict=True)]
        ids = [torch.tensor(one, dtype=torch.long) for one in template.encode_all(changed, tokenizer)]
        padded, mask = pad_rows(ids, left=True)
        return padded.to(device), mask.to(device)


def most_different(answer: str, others: list[str]) -> str:
    """The first of the other answers that shares the fewest words with an answer, and is not the same.

    >>> most_different("a1, b2", ["a1, b2", "b2, c3", "a4, b3"])
    'a4, b3'
    """
    words = Counter(re.findall(r"\w+", answer))
    wrong = [other for other in others if other != answer]
    return min(wrong, key=lambda other: (words & Counter(re.findall(r"\w+", other))).total())


def with_answer(row: Row, text: str, answer: str) -> Row:
    """The row with the answer beside its question.

    >>> with_answer(Row("0", [{"role": "user", "content": "1+1"}], "2"), "{question} ({answer})", "2").question
    '1+1 (2)'
    """
    parts = [part.replace("{answer}", answer) for part in text.split("{question}")]
    changed = copy.copy(row)
    changed.messages = [*row.messages[:-1], {**row.messages[-1], "content": row.question.join(parts)}]
    return changed
