"""Native Reasoning Training as a LightningModule."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from typing_extensions import override

from nrt_lightning.advantages import AdvantageEstimator, GroupNormalized
from nrt_lightning.callbacks.on_policy_rollout import OnPolicyRollout
from nrt_lightning.data.batches import TextBatches
from nrt_lightning.errors import InputError
from nrt_lightning.evaluation import Evaluation, TextMetric, evaluate
from nrt_lightning.filters import GroupFilter
from nrt_lightning.functional.validation import check_at_least
from nrt_lightning.losses import NRTLoss
from nrt_lightning.models import BaselineScorer, NoReference, Policy, PolicyBaseline, Reference
from nrt_lightning.modules.schedules import Schedule
from nrt_lightning.modules.training_log import TrainingLog
from nrt_lightning.randomness import counter_seed, run_seed
from nrt_lightning.rewards import (
    FixedTokenWeights,
    KeepOverlong,
    KLPenalty,
    OverlongTraces,
    RewardAggregator,
    TokenWeighting,
    WeightedSum,
)
from nrt_lightning.rollouts import RolloutEngine, TransformersEngine, write_answers
from nrt_lightning.signals import SignalCombiner
from nrt_lightning.structures import Prompts, Sampling
from nrt_lightning.training.checks import check_method, method_of
from nrt_lightning.training.conditioned import AnswerConditioned
from nrt_lightning.training.method import Method
from nrt_lightning.training.state import after_step, observe, restore, state_of
from nrt_lightning.training.steps import StepGains


class NRTModule(TrainingLog):
    """Trains a policy to reason from question-answer pairs (arXiv 2602.11549).

    The policy samples traces for every prompt. The reward of a trace is the policy's confidence in the reference answer
    after it, and advantages are relative to the other traces of the prompt. Every part is a swappable class. The
    defaults are the paper's best aggregation with its authors' hyperparameters.

    Args:
        policy: the model to train.
        aggregator: maps the confidences in the answer's tokens to the trace reward and to token weights.
        signals: combines several signals to the trace reward; null for the aggregator's reward.
        advantage: maps the rewards of a group to advantages.
        token_weights: weights of the answer term.
        loss: trace, marker, answer and KL terms.
        reference: a second model, for the KL and for the baseline of `ReferenceBaseline`.
        sampling: how traces are sampled.
        engine: samples the traces.
        optimizer: maps parameters to an optimizer; null for AdamW with the authors' settings.
        schedule: of the learning rate; null for a linear one with 10 % warm-up.
        max_tokens_per_micro_batch: split a batch into micro-batches of at most this many tokens; gradients equal those
            of the full batch. Counts the tokens that go through the model: prompts once, completions, and answers once
            more for the baseline. A group is never divided; one above the limit is counted in
            `train/groups_over_limit`. Null for one forward pass; `auto` for one that is divided where a single process
            runs out of memory.
        predict_temperature: of traces and answers in `predict`; 0 is greedy.
        train_response: train what the policy writes: trace, marker and its own answer. The reference answer then only
            gives the reward.
        filters: drop groups from the loss; dropped groups are replaced in at most `sampling.refill_rounds` rounds.
        baseline_scorer: the model that scores the answers after the empty trace.
        overlong: how traces that reached their limit are treated.
        kl_penalty: a KL penalty in the reward; null for none. The loss has its own `kl_coef`.
        metrics: the user's metrics of evaluation, a list or a mapping by name: torchmetrics that compare texts, and
            text signals such as `MathVerify`. With them answers are written to `sampling.max_answer_tokens`.
        text_batches: how batches of plain texts, of dataloaders other than `QADataModule`'s, are encoded.
        answer_conditioned: draws a share of the traces with the answer in the prompt; null for none.
        step_credit: gives the steps of a trace advantages of their own; null for one advantage a trace.

    Raises:
        InputError: settings that cannot work together, before any weights are read.

    Example:
        >>> module = NRTModule(Policy("embedded:registers-base"), sampling=Sampling(group_size=4, max_trace_tokens=32))
        >>> module.method.aggregator
        WeightedSum(weighting='neg_log_prob')
    """

    def __init__(
        self,
        policy: Policy,
        aggregator: RewardAggregator = WeightedSum(),  # noqa: B008  (frozen settings)
        advantage: AdvantageEstimator = GroupNormalized(),  # noqa: B008
        token_weights: TokenWeighting = FixedTokenWeights(),  # noqa: B008
        loss: NRTLoss | None = None,
        reference: Reference = NoReference(),  # noqa: B008
        sampling: Sampling | None = None,
        engine: RolloutEngine = TransformersEngine(),  # noqa: B008
        optimizer: OptimizerCallable | None = None,
        schedule: Schedule | None = None,
        max_tokens_per_micro_batch: int | Literal["auto"] | None = None,
        predict_temperature: float = 0.0,
        signals: SignalCombiner | None = None,
        *,
        train_response: bool = False,
        filters: list[GroupFilter] | None = None,
        baseline_scorer: BaselineScorer | None = None,
        overlong: OverlongTraces = KeepOverlong(),  # noqa: B008
        kl_penalty: KLPenalty | None = None,
        metrics: list[TextMetric] | dict[str, TextMetric] | None = None,
        text_batches: TextBatches | None = None,
        answer_conditioned: AnswerConditioned | None = None,
        step_credit: StepGains | None = None,
    ) -> None:
        super().__init__(policy, engine, optimizer, schedule, metrics, text_batches, max_tokens_per_micro_batch)
        check_at_least("predict_temperature", predict_temperature, 0)
        self.predict_temperature = predict_temperature
        self.method = Method(
            policy=policy,
            aggregator=aggregator,
            signals=signals,
            advantage=advantage,
            token_weights=token_weights,
            loss=loss or NRTLoss(),
            reference=reference,
            sampling=sampling or Sampling(),
            engine=engine,
            filters=filters or [],
            baseline_scorer=baseline_scorer or PolicyBaseline(),
            overlong=overlong,
            kl_penalty=kl_penalty,
            train_response=train_response,
            answer_conditioned=answer_conditioned,
            step_credit=step_credit,
        )
        check_method(self.method)

    # Training

    @override
    def configure_callbacks(self) -> list[Callback]:
        given = any(isinstance(c, OnPolicyRollout) for c in self.trainer.callbacks)  # type: ignore[attr-defined]
        return [*([] if given else [OnPolicyRollout()]), *super().configure_callbacks()]

    @override
    def setup(self, stage: str) -> None:
        method_of(self, type(self).__name__)
        super().setup(stage)

    @override
    def configure_model(self) -> None:
        super().configure_model()
        method = self.method
        if method.needs_reference:
            method.reference.load(self.policy)
        if method.needs_baseline and not method.baseline_scorer.from_policy_forward:
            directory, precision = (Path(t.default_root_dir), t.precision) if (t := self._trainer) else (None, "")
            method.baseline_scorer.load(self.policy, method.reference, directory, precision)

    @override
    def training_step(self, batch: Prompts, batch_idx: int) -> dict[str, Tensor]:
        if not isinstance(batch, Prompts) or batch.rollouts is None:
            raise InputError(
                f"training_step got a {type(batch).__name__} without rollouts: the OnPolicyRollout callback adds them."
            )
        step = self.learn(batch)
        observe(self.method, batch, step.credit.reward.value, step.out, self.processes)
        self.log_training(batch, step)
        return self.outputs(batch, step)

    @override
    def after_optimizer_step(self, step: int) -> None:
        after_step(self.method, step)

    # Evaluation

    @override
    def answer(self, prompts: Prompts) -> Evaluation:
        sampling = self.method.sampling
        return evaluate(
            self.policy, self.engine, prompts, sampling, sampling.max_answer_tokens if self.metrics.names else 0
        )

    @override
    def predict_step(self, batch: Prompts | None, batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, Any]]:
        if batch is None:  # no row fits
            return []
        sampling = dataclasses.replace(self.method.sampling, temperature=self.predict_temperature)
        seed = counter_seed(run_seed(), dataloader_idx, batch_idx, self.global_rank, "predict")
        with self.policy.evaluating():
            written = write_answers(self.policy, self.engine, batch, sampling, sampling.max_answer_tokens, seed)
        return [
            {"id": row.id, "question": row.question, "trace": trace, "answer": answer, "marker_emitted": emitted}
            for row, trace, answer, emitted in zip(
                batch.rows, written.trace_texts, written.answer_texts, written.marker_emitted.tolist(), strict=True
            )
        ]

    # Checkpoints

    @override
    def describe(self) -> dict[str, str]:
        return self.method.describe()

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["nrt_lightning"] |= state_of(self.method)

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        restore(self.method, checkpoint.get("nrt_lightning", {}))
