"""Supervised fine-tuning on the same rows: the baseline of every comparison."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from nrt_lightning.evaluation.evaluate import checked_matches, matches, with_checks
from nrt_lightning.functional import Reduction, TokenMean
from nrt_lightning.metrics import ReasoningMetrics
from nrt_lightning.models import Policy
from nrt_lightning.modules.base import PolicyModule
from nrt_lightning.modules.schedules import Schedule
from nrt_lightning.rollouts import RolloutEngine, TransformersEngine, direct_answers
from nrt_lightning.rollouts.answering import write_directly
from nrt_lightning.structures import Prompts


class SFTModule(PolicyModule):
    """Trains a policy to write the answer right after the question: cross-entropy, no trace and no marker.

    Args:
        policy: the model that is trained.
        reduction: from per-token losses to a scalar.
        engine: what decodes in validation.
        optimizer: from parameters to an optimizer; null for AdamW with lr 2e-6.
        schedule: of the learning rate; null for a linear one with 10 % warm-up.
        max_answer_tokens: limit of an answer in `predict`.

    Example:
        >>> SFTModule(Policy("embedded:registers-base")).reduction
        TokenMean()
    """

    def __init__(
        self,
        policy: Policy,
        reduction: Reduction = TokenMean(),  # noqa: B008  (frozen settings)
        engine: RolloutEngine = TransformersEngine(),  # noqa: B008
        optimizer: OptimizerCallable | None = None,
        schedule: Schedule | None = None,
        max_answer_tokens: int = 256,
    ) -> None:
        super().__init__(policy, engine, optimizer, schedule)
        self.reduction = reduction
        self.max_answer_tokens = max_answer_tokens

    def training_step(self, batch: Prompts, batch_idx: int) -> Tensor:
        """Cross-entropy of the answers."""
        prompts = batch.micro_batch()
        logprobs = self.policy.score(direct_answers(prompts, self.policy.marker_id)).logprobs  # [B, T]
        (factor,) = self.reduction.balance([prompts.answer_mask], self.processes.mean)
        loss = factor * self.reduction(-logprobs, prompts.answer_mask)
        self.log("train/loss", self.processes.mean(loss.detach()), prog_bar=True, batch_size=len(prompts))
        self.log_throughput(prompts.answer_mask.sum() + prompts.prompt_mask.sum())
        return loss

    def validation_step(self, batch: Prompts, batch_idx: int) -> None:
        """Answer the questions greedily, and score the reference answers."""
        self.evaluate(batch, self.val_metrics)

    def test_step(self, batch: Prompts, batch_idx: int) -> None:
        """As `validation_step`."""
        self.evaluate(batch, self.test_metrics)

    def evaluate(self, prompts: Prompts, metrics: ReasoningMetrics) -> None:
        """Add what the policy makes of these questions to `metrics`."""
        policy = self.policy
        with policy.evaluating():
            answers = write_directly(policy, self.engine, prompts, prompts.answer_ids.shape[1])
            logprobs = policy.score(direct_answers(prompts, policy.marker_id)).logprobs  # [B, T]
        right = matches(policy, prompts, answers)  # [B]
        metrics.update(
            counted=prompts.counted,
            exact_match=right,
            exact_match_forced=right,
            confidence=logprobs.where(prompts.answer_mask, 0).sum(dim=1).exp(),
        )
        held = checked_matches(prompts, answers)  # [B]
        metrics.update(counted=with_checks(prompts), checked_match=held, checked_match_forced=held)

    def predict_step(self, batch: Prompts, batch_idx: int) -> list[dict[str, Any]]:
        """An answer for every question, in the same fields as `NRTModule`'s with an empty trace."""
        with self.policy.evaluating():
            answers = write_directly(self.policy, self.engine, batch, self.max_answer_tokens)
        return [
            {"id": row.id, "question": row.question, "trace": "", "answer": answer, "marker_emitted": False}
            for row, answer in zip(batch.rows, answers, strict=True)
        ]

    def describe(self) -> dict[str, str]:
        """The method's parts and settings, as text."""
        return {"reduction": repr(self.reduction)}
