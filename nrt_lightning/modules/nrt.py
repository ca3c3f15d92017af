"""Native Reasoning Training as a LightningModule."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from nrt_lightning.advantages import AdvantageEstimator, GroupNormalized
from nrt_lightning.callbacks.on_policy_rollout import OnPolicyRollout
from nrt_lightning.errors import InputError
from nrt_lightning.evaluation import Evaluation, TextMetric, evaluate
from nrt_lightning.filters import GroupFilter
from nrt_lightning.functional import check_at_least
from nrt_lightning.losses import NRTLoss
from nrt_lightning.metrics import Mean, group_metrics, loss_metrics, rollout_metrics, signal_metrics
from nrt_lightning.models import BaselineScorer, NoReference, Policy, PolicyBaseline, Reference
from nrt_lightning.modules.base import PolicyModule
from nrt_lightning.modules.schedules import Schedule
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
from nrt_lightning.training.method import Method
from nrt_lightning.training.micro_batches import Step, learn_at_once, learn_in_parts, split, tokens_of_groups


class NRTModule(PolicyModule):
    """Teaches a policy to reason from question-answer pairs (arXiv 2602.11549).

    For every prompt the policy samples traces; a trace is rewarded by the policy's own confidence in the reference
    answer after it; the policy learns from the rewards relative to their group. All parts are swappable classes. The
    defaults are the paper's best aggregation with its authors' hyperparameters.

    Args:
        policy: the model that is trained.
        aggregator: from the confidences in the answer's tokens to the trace reward, and to the answer's token weights.
        signals: what the trace reward is combined from; null for the aggregator's reward alone.
        advantage: from the rewards of a group to advantages.
        token_weights: weights of the answer term.
        loss: trace, marker, answer and KL terms.
        reference: a second model for the KL, and for the baseline if its scorer says so.
        sampling: how traces are drawn.
        engine: what draws them.
        optimizer: from parameters to an optimizer; null for AdamW with the authors' settings.
        schedule: of the learning rate; null for a linear one with 10 % warm-up.
        max_tokens_per_micro_batch: split a batch into micro-batches of at most this many tokens, groups of like length
            together, whose gradients add up to that of the whole batch; null for one forward pass. Tokens are those
            that go through the model: prompts once, completions, and answers once more for the baseline. A group is
            never divided; one above the limit is counted in `train/groups_over_limit`.
        predict_temperature: of traces and answers in `predict`; 0 is greedy.
        train_response: train what the policy writes by itself, trace, marker and an answer of its own; the reference
            answer then only gives the reward.
        filters: groups that one of these drops carry no loss, and are replaced as often as `sampling.refill_rounds`
            says; null for none.
        baseline_scorer: whose confidence after the empty trace a trace is held against.
        overlong: what becomes of traces that reached their limit.
        kl_penalty: KL against the reference in the reward; null for none. The loss has `kl_coef` of its own.
        metrics: the user's metrics of evaluation, a list or a mapping by name: torchmetrics that compare texts, and
            signals such as `MathVerify`. With them answers are written to `sampling.max_answer_tokens`.

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
        max_tokens_per_micro_batch: int | None = None,
        predict_temperature: float = 0.0,
        signals: SignalCombiner | None = None,
        train_response: bool = False,
        filters: list[GroupFilter] | None = None,
        baseline_scorer: BaselineScorer | None = None,
        overlong: OverlongTraces = KeepOverlong(),  # noqa: B008
        kl_penalty: KLPenalty | None = None,
        metrics: list[TextMetric] | dict[str, TextMetric] | None = None,
    ) -> None:
        super().__init__(policy, engine, optimizer, schedule, metrics)
        if max_tokens_per_micro_batch is not None:
            check_at_least("max_tokens_per_micro_batch", max_tokens_per_micro_batch, 1)
        self.max_tokens_per_micro_batch = max_tokens_per_micro_batch
        self.predict_temperature = predict_temperature
        self.method = Method(
            policy=policy,
            aggregator=aggregator,
            signals=signals,
            advantage=advantage,
            token_weights=token_weights,
            loss=corrected(loss or NRTLoss(), engine),
            reference=reference,
            sampling=sampling or Sampling(),
            engine=engine,
            filters=filters or [],
            baseline_scorer=baseline_scorer or PolicyBaseline(),
            overlong=overlong,
            kl_penalty=kl_penalty,
            train_response=train_response,
        )
        check_method(self.method)

    # Training

    def configure_callbacks(self) -> list[Callback]:
        """`OnPolicyRollout`, unless the trainer has one, and what shows the progress."""
        given = any(isinstance(c, OnPolicyRollout) for c in self.trainer.callbacks)  # type: ignore[attr-defined]
        return [*([] if given else [OnPolicyRollout()]), *super().configure_callbacks()]

    def setup(self, stage: str) -> None:
        """Check the settings before any weights are read."""
        method_of(self, type(self).__name__)
        super().setup(stage)

    def configure_model(self) -> None:
        """Read the weights of policy and reference."""
        super().configure_model()
        method = self.method
        if method.needs_reference:
            method.reference.load(self.policy)
        if method.needs_baseline and not method.baseline_scorer.from_policy_forward:
            directory, precision = Path(self.trainer.default_root_dir), self.trainer.precision
            method.baseline_scorer.load(self.policy, method.reference, directory, precision)

    def training_step(self, batch: Prompts, batch_idx: int) -> dict[str, Tensor]:
        """One batch of rollouts: scores, rewards, advantages, loss."""
        if not isinstance(batch, Prompts) or batch.rollouts is None:
            raise InputError(
                f"training_step got a {type(batch).__name__} without rollouts: the OnPolicyRollout callback adds them."
            )
        step = self.learn(batch)
        self.log_training(batch, step)
        return {"loss": step.loss, "reward": step.credit.reward.value, "advantages": step.credit.advantages}

    def learn(self, batch: Prompts) -> Step:
        """Scores, credit and loss, in micro-batches if `max_tokens_per_micro_batch` asks for them."""
        limit, processes = self.max_tokens_per_micro_batch, self.processes
        if limit is None:
            return learn_at_once(self.method, batch, processes)
        parts = split(batch, limit, processes)
        over = float(sum(count > limit for count in tokens_of_groups(batch.trained)))
        counts = {"micro_batches": torch.tensor(float(len(parts))), "groups_over_limit": torch.tensor(over)}
        self.log_scalars(counts, "train", len(batch.trained))
        return learn_in_parts(self.method, batch, parts, processes, self.backward_part)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Step, and update the reference."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.method.reference.update(self.policy, self.trainer.global_step + 1)  # the trainer counts the step after it

    def log_training(self, batch: Prompts, step: Step) -> None:
        """Log the rewards, signals and losses of a batch under `train/`, and its traces under `rollout/`."""
        rollouts, reward = batch.rollouts, step.credit.reward
        assert rollouts is not None
        groups = group_metrics(reward.value, reward.baseline, step.credit.advantages, rollouts.group_ids)
        scalars = groups | signal_metrics(reward.signals) | loss_metrics(step.out)
        if self.method.signals is None:
            scalars[f"reward_{self.method.aggregator.name}"] = groups["reward"]
        if batch.responses is not None:  # they have no answer tokens
            scalars.pop("answer_nll", None)
            if rollouts.old_scores is not None:
                scalars["answer_nll"] = Mean.of(-rollouts.old_scores.logprobs, rollouts.segments.answer_mask)
        width = rollouts.completion_ids.shape[1]  # a response begins with the same trace, narrower or wider
        traces = rollout_metrics(rollouts, F.pad(step.scores.entropy, (0, width))[:, :width])
        self.log_scalars(scalars, "train", len(rollouts))
        self.log_scalars(traces, "rollout", len(rollouts))
        worth = "reward" if reward.baseline is None else "gain"
        bar = {worth: groups[worth], "marker": traces["marker_rate"], "trace": traces["trace_tokens"]}
        values = {name: scalar.value for name, scalar in bar.items()}
        self.log_dict(values, prog_bar=True, logger=False, batch_size=len(rollouts))
        self.log_throughput(batch.trained.segments.completion_mask.sum() + rollouts.prompt_mask.sum())

    # Evaluation

    def answer(self, prompts: Prompts) -> Evaluation:
        """Greedy answers with and without a trace, and the reference answers' log-probs."""
        sampling = self.method.sampling
        return evaluate(
            self.policy, self.engine, prompts, sampling, sampling.max_answer_tokens if self.metrics.names else 0
        )

    def predict_step(self, batch: Prompts, batch_idx: int) -> list[dict[str, Any]]:
        """A trace and an answer for every question."""
        sampling = dataclasses.replace(self.method.sampling, temperature=self.predict_temperature)
        seed = counter_seed(run_seed(), 0, batch_idx, self.global_rank, "predict")
        with self.policy.evaluating():
            written = write_answers(self.policy, self.engine, batch, sampling, sampling.max_answer_tokens, seed)
        return [
            {"id": row.id, "question": row.question, "trace": trace, "answer": answer, "marker_emitted": emitted}
            for row, trace, answer, emitted in zip(
                batch.rows, written.trace_texts, written.answer_texts, written.marker_emitted.tolist(), strict=True
            )
        ]

    # Checkpoints

    def describe(self) -> dict[str, str]:
        """The parts and settings of the method, as text."""
        return self.method.describe()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note whose checkpoint it is, and what filters and reference have learned of the run."""
        super().on_save_checkpoint(checkpoint)
        filters = [(filter_.name, filter_.state_dict()) for filter_ in self.method.filters]
        checkpoint["nrt_lightning"] |= {"filters": filters, "reference": self.method.reference.state_dict()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As above, and go on with the filters and the reference as they were."""
        super().on_load_checkpoint(checkpoint)
        noted = checkpoint.get("nrt_lightning", {})
        self.method.reference.load_state_dict(noted.get("reference", {}))
        for filter_, (name, state) in zip(self.method.filters, noted.get("filters", []), strict=False):
            if filter_.name == name:
                filter_.load_state_dict(state)


def corrected(loss: NRTLoss, engine: RolloutEngine) -> NRTLoss:
    """The loss with the correction that the engine asks for, unless it has one of its own."""
    if loss.sampler_correction is not None or engine.sampler_correction is None:
        return loss
    return dataclasses.replace(loss, sampler_correction=engine.sampler_correction)
