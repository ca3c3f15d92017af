"""Supervised fine-tuning on the same rows."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from typing_extensions import override

from nrt_lightning.data.batches import TextBatches, check_batch
from nrt_lightning.evaluation import Evaluation, TextMetric, evaluate_direct_answers
from nrt_lightning.functional import Reduction, TokenMean
from nrt_lightning.models import Policy
from nrt_lightning.models.policy.texts import decode_answers
from nrt_lightning.modules.base import PolicyModule
from nrt_lightning.modules.schedules import Schedule
from nrt_lightning.rollouts import RolloutEngine, TransformersEngine, direct_answers
from nrt_lightning.rollouts.answering import write_directly
from nrt_lightning.structures import LossOutput, Prompts
from nrt_lightning.training.accumulation import with_value


class SFTModule(PolicyModule):
    """Trains a policy to write the answer right after the question: cross-entropy, without trace and marker.

    Args:
        policy: the model that is trained.
        reduction: reduces per-token losses to a scalar.
        engine: decodes in evaluation.
        optimizer: from parameters to an optimizer; null for AdamW with lr 2e-6.
        schedule: learning-rate schedule; null for a linear one with 10 % warm-up.
        max_answer_tokens: limit of an answer in `predict`, and in evaluation with `metrics`.
        metrics: the user's metrics of evaluation, a list or a mapping by name: torchmetrics that compare texts, and
            signals such as `MathVerify`.
        text_batches: how batches of plain texts, of dataloaders other than `QADataModule`'s, are encoded.

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
        metrics: list[TextMetric] | dict[str, TextMetric] | None = None,
        text_batches: TextBatches | None = None,
    ) -> None:
        super().__init__(policy, engine, optimizer, schedule, metrics, text_batches)
        self.reduction = reduction
        self.max_answer_tokens = max_answer_tokens

    @override
    def training_step(self, batch: Prompts, batch_idx: int) -> Tensor:
        """The cross-entropy of the answers."""
        check_batch(batch)
        self.begin_micro_batch()
        prompts = batch.micro_batch()
        logprobs = self.policy.score(direct_answers(prompts, self.policy.markup)).logprobs  # [B, T]
        factor, size = self.reduction.balance([prompts.answer_mask], self.processes.mean)  # [1]
        loss = factor[0] * self.reduction(-logprobs, prompts.answer_mask)
        self.log("train/loss", self.processes.mean(loss.detach()), prog_bar=True, batch_size=len(prompts))
        self.log_throughput(prompts.answer_mask.sum() + prompts.prompt_mask.sum())
        weighed = self.weighed(LossOutput(loss, {}, parts={"loss": loss}, sizes={"loss": size[0]}))
        return with_value(weighed, loss)

    @override
    def answer(self, prompts: Prompts) -> Evaluation:
        limit = self.max_answer_tokens if self.metrics.names else 0
        return evaluate_direct_answers(self.policy, self.engine, prompts, limit)

    @override
    def predict_step(self, batch: Prompts | None, batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, Any]]:
        """One answer for each question, in the fields of `NRTModule`'s. Those of traces are None."""
        if batch is None:  # no row fits
            return []
        with self.policy.evaluating():
            written = write_directly(self.policy, self.engine, batch, self.max_answer_tokens)
        return [
            {"id": row.id, "question": row.question, "trace": None, "answer": answer, "marker_emitted": None}
            for row, answer in zip(
                batch.rows, decode_answers(self.policy, written.token_ids, written.token_mask), strict=True
            )
        ]

    @override
    def describe(self) -> dict[str, str]:
        return {"reduction": repr(self.reduction)}
