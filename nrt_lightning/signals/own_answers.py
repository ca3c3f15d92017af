"""Rewards of agreement among the answers that the policy writes to a question. They use no reference answer."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from nrt_lightning.signals.base import RolloutEvidence, RolloutSignal


class Agreement(RolloutSignal):
    """Compares the policy's answers of a group, up to surrounding white space.

    A rollout counts if its marker was emitted and its answer ended by itself; others have the value 0.
    """

    minimum = 0.0
    needs_group = True
    needs_policy_answers = True

    @abstractmethod
    def values(self, answers: list[str | None]) -> list[float]:
        """The values of one group; None stands for an answer that does not count."""

    @override
    def measure(self, evidence: RolloutEvidence) -> Tensor:
        groups: dict[int, list[int]] = {}
        for row, group in enumerate(evidence.rollouts.group_ids.tolist()):
            groups.setdefault(group, []).append(row)
        found = torch.zeros(len(evidence.rollouts), dtype=torch.float32)
        for rows in groups.values():
            texts = [evidence.texts[row] for row in rows]
            whole = [
                text.policy_answer.strip() if text.policy_answer_ended and text.marker_emitted else None
                for text in texts
            ]
            found[rows] = torch.tensor(self.values(whole))
        return found.to(evidence.prompts.prompt_ids.device)


@dataclass(frozen=True)
class MajorityVote(Agreement):
    """1 if the policy's answer is the most frequent one of its group, else 0: TTRL (arXiv 2504.16084).

    Of equally frequent answers, that of the first rollout counts. The paper votes over 64 answers and trains on 32 of
    them; here all rollouts of the group vote and are trained.

    Example:
        >>> MajorityVote().values(["4", "5", "4", None])
        [1.0, 0.0, 1.0, 0.0]
    """

    @override
    def values(self, answers: list[str | None]) -> list[float]:
        votes = Counter(answer for answer in answers if answer is not None)
        winner = votes.most_common(1)[0][0] if votes else None
        return [float(answer is not None and answer == winner) for answer in answers]


@dataclass(frozen=True)
class AnswerShare(Agreement):
    """The fraction of the group's rollouts that have the same answer: EMPO (arXiv 2504.05812).

    Its expectation rises as the entropy of the answers falls. The paper clusters free texts by meaning; here answers
    are equal if their texts are.

    Example:
        >>> AnswerShare().values(["4", "5", "4", None])
        [0.5, 0.25, 0.5, 0.0]
    """

    @override
    def values(self, answers: list[str | None]) -> list[float]:
        counts = Counter(answer for answer in answers if answer is not None)
        return [0.0 if answer is None else counts[answer] / len(answers) for answer in answers]
