"""Native Reasoning Training as a LightningModule."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from nrt_lightning.advantages import AdvantageEstimator, GroupNormalized
from nrt_lightning.callbacks.on_policy_rollout import OnPolicyRollout
from nrt_lightning.errors import InputError
from nrt_lightning.evaluation import outcomes
from nrt_lightning.functional import check_at_least, pack_segment, unpack_segment
from nrt_lightning.functional.randomness import counter_seed, run_seed
from nrt_lightning.losses import NRTLoss, WholeBatch
from nrt_lightning.metrics import ReasoningMetrics, group_metrics, rollout_metrics
from nrt_lightning.models import NoReference, Policy, Reference
from nrt_lightning.policy_module import PolicyModule
from nrt_lightning.rewards import FixedTokenWeights, RewardAggregator, TokenWeighting, WeightedSum
from nrt_lightning.rollouts import RolloutEngine, TransformersEngine, write_answers
from nrt_lightning.schedules import Schedule
from nrt_lightning.structures import Judgement, LossOutput, Prompts, Rollouts, Sampling, Scores, TraceReward
from nrt_lightning.token_budget import Step, learn_at_once, learn_in_parts, split, tokens_of_groups


class NRTModule(PolicyModule):
    """Teaches a policy to reason from question-answer pairs (arXiv 2602.11549).

    For every prompt the policy samples traces; a trace is rewarded by the policy's own confidence in the reference
    answer after it; the policy learns from the rewards relative to their group. All parts are swappable classes. The
    defaults are the paper's best aggregation with its authors' hyperparameters.

    Args:
        policy: the model that is trained.
        aggregator: from the confidences in the answer's tokens to the trace reward.
        advantage: from the rewards of a group to advantages.
        token_weights: weights of the answer term.
        loss: trace, marker, answer and KL terms.
        reference: a frozen model for the KL term.
        sampling: how traces are drawn.
        engine: what draws them.
        optimizer: from parameters to an optimizer; null for AdamW with the authors' settings.
        schedule: of the learning rate; null for a linear one with 10 % warm-up.
        max_tokens_per_micro_batch: split a batch into micro-batches of at most this many tokens, groups of like length
            together, whose gradients add up to that of the whole batch; null for one forward pass. Tokens are those
            that go through the model: prompts once, completions, and answers once more for the baseline. A group is
            never divided; one above the limit is counted in `train/groups_over_limit`.
        predict_temperature: of traces and answers in `predict`; 0 is greedy.

    Raises:
        InputError: settings that cannot work together, before any weights are read.

    Example:
        >>> module = NRTModule(Policy("embedded:registers-base"), sampling=Sampling(group_size=4, max_trace_tokens=32))
        >>> module.aggregator
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
    ) -> None:
        super().__init__(policy, engine, optimizer, schedule)
        self.aggregator = aggregator
        self.advantage = advantage
        self.token_weights = token_weights
        self.loss = loss or NRTLoss()
        self.reference = reference
        self.sampling = sampling or Sampling()
        self.max_tokens_per_micro_batch = max_tokens_per_micro_batch
        self.predict_temperature = predict_temperature
        if max_tokens_per_micro_batch is not None:
            check_at_least("max_tokens_per_micro_batch", max_tokens_per_micro_batch, 1)
        self.reference.check(policy)
        check_parts(self.advantage, self.loss, self.reference, self.sampling)

    # Training

    def configure_callbacks(self) -> list[Callback]:
        """`OnPolicyRollout`, unless the trainer has one."""
        trainer: Any = self.trainer
        return [] if any(isinstance(c, OnPolicyRollout) for c in trainer.callbacks) else [OnPolicyRollout()]

    def configure_model(self) -> None:
        """Read the weights of policy and reference."""
        super().configure_model()
        if self.loss.kl_coef:
            self.reference.load(self.policy)

    def training_step(self, batch: Prompts, batch_idx: int) -> dict[str, Tensor]:
        """One batch of rollouts: confidences, rewards, advantages, loss."""
        rollouts = rollouts_of(batch)
        step = self.learn(rollouts)
        self.log_training(rollouts, step)
        return {"loss": step.loss, "reward": step.judgement.reward.value, "advantages": step.judgement.advantages}

    def learn(self, rollouts: Rollouts) -> Step:
        """Scores, judgement and loss, in micro-batches where `max_tokens_per_micro_batch` asks for them."""
        limit = self.max_tokens_per_micro_batch
        if limit is None:
            return learn_at_once(self, rollouts)
        parts = split(rollouts, limit, self.largest)
        over = sum(count > limit for count in tokens_of_groups(rollouts))
        counts = {"micro_batches": torch.tensor(float(len(parts))), "groups_over_limit": torch.tensor(float(over))}
        self.log_scalars(counts, "train", len(rollouts))
        return learn_in_parts(self, rollouts, parts)

    def score(self, rollouts: Rollouts) -> Scores:
        """What the models say of the rollouts; the baseline too where the window has not been scored."""
        scores = self.policy.score(rollouts, baseline=self.needs_baseline and rollouts.old_logprobs is None)
        scores.ref_logprobs = self.reference.logprobs(rollouts) if self.loss.kl_coef else None
        return scores

    def judge(self, rollouts: Rollouts, scores: Scores) -> Judgement:
        """Rewards, advantages and the answer's token weights."""
        scored = rollouts.old_logprobs is not None  # off-policy: the window was scored before its first step
        old_logprobs = scores.logprobs.detach() if rollouts.old_logprobs is None else rollouts.old_logprobs  # [N, C]
        baseline_logprobs = rollouts.baseline_logprobs if scored else scores.baseline_logprobs  # [B, T]
        reward, baseline = self.reward(rollouts, old_logprobs, baseline_logprobs)
        advantages = self.advantage(reward.value, rollouts.group_ids, baseline)  # [N]
        return Judgement(old_logprobs, reward, baseline, advantages, self.answer_weights(rollouts, reward))

    def loss_of(
        self, rollouts: Rollouts, scores: Scores, judgement: Judgement, whole: WholeBatch | None = None
    ) -> LossOutput:
        """The loss, with gradient into `scores.logprobs`."""
        return self.loss(
            scores.logprobs,
            judgement.old_logprobs,
            rollouts.segments,
            judgement.advantages,
            judgement.token_weights,
            scores.ref_logprobs,
            whole,
        )

    def couples_groups(self, rollouts: Rollouts) -> bool:
        """Whether the loss of a group depends on the log-probs of other groups in the batch."""
        return rollouts.old_logprobs is not None and self.loss.couples_rollouts

    @property
    def needs_baseline(self) -> bool:
        """Whether the answer must be scored after the empty trace."""
        return self.aggregator.needs_baseline or self.advantage.needs_baseline

    def reward(
        self, rollouts: Rollouts, logprobs: Tensor, baseline_logprobs: Tensor | None
    ) -> tuple[TraceReward, Tensor | None]:
        """The trace rewards, and the empty trace's for the same rows [N] where the baseline is known.

        Args:
            rollouts: N completions.
            logprobs: of the policy that sampled them, [N, C].
            baseline_logprobs: of the answers after the empty trace, [B, T].
        """
        rows, width = rollouts.group_ids, rollouts.answer_ids.shape[1]
        mask = rollouts.answer_mask[rows]  # [N, T]
        confidences = pack_segment(logprobs, rollouts.segments.answer_mask, width)  # [N, T]
        if baseline_logprobs is None:
            return self.aggregator(confidences, mask), None
        empty = self.aggregator(baseline_logprobs, rollouts.answer_mask, baseline_logprobs).value  # [B]
        return self.aggregator(confidences, mask, baseline_logprobs[rows]), empty[rows]

    def answer_weights(self, rollouts: Rollouts, reward: TraceReward) -> Tensor:
        """The answer term's weights, in their places in the completions. [N, C]"""
        mask = rollouts.answer_mask[rollouts.group_ids]  # [N, T]
        weights = self.token_weights(reward.token_weights, mask, rollouts.group_ids)  # [N, T]
        return unpack_segment(weights, rollouts.segments.answer_mask)

    def log_training(self, rollouts: Rollouts, step: Step) -> None:
        """Log what matters of a batch."""
        judged, out = step.judgement, step.out
        groups = group_metrics(judged.reward.value, judged.baseline, judged.advantages, rollouts.group_ids)
        groups[f"reward_{self.aggregator.name}"] = judged.reward.value.mean()
        losses = {f"loss_{name}": term for name, term in out.terms.items()} | {"loss": out.loss.detach()}
        traces = rollout_metrics(rollouts, step.scores.entropy)
        self.log_scalars(groups | losses | out.metrics, "train", len(rollouts))
        self.log_scalars(traces, "rollout", len(rollouts))
        worth = "reward" if judged.baseline is None else "gain"
        bar = {worth: groups[worth], "marker": traces["marker_rate"], "trace": traces["trace_tokens"]}
        self.log_dict(bar, prog_bar=True, logger=False, batch_size=len(rollouts))
        self.log_throughput(rollouts.segments.completion_mask.sum() + rollouts.prompt_mask.sum())

    # Evaluation

    def validation_step(self, batch: Prompts, batch_idx: int) -> None:
        """Answer the questions greedily, and score the reference answers."""
        self.evaluate(batch, self.val_metrics)

    def test_step(self, batch: Prompts, batch_idx: int) -> None:
        """As `validation_step`."""
        self.evaluate(batch, self.test_metrics)

    def evaluate(self, prompts: Prompts, metrics: ReasoningMetrics) -> None:
        """Add what the policy makes of these questions to `metrics`."""
        with self.policy.evaluating():
            metrics.update(counted=prompts.counted, **outcomes(self.policy, self.engine, prompts, self.sampling))

    def predict_step(self, batch: Prompts, batch_idx: int) -> list[dict[str, Any]]:
        """A trace and an answer for every question."""
        sampling = dataclasses.replace(self.sampling, temperature=self.predict_temperature)
        seed = counter_seed(run_seed(), 0, batch_idx, self.global_rank, "predict")
        with self.policy.evaluating():
            written = write_answers(self.policy, self.engine, batch, sampling, sampling.max_answer_tokens, seed)
        return [
            {"id": row.id, "question": row.question, "trace": trace, "answer": answer, "marker_emitted": emitted}
            for row, trace, answer, emitted in zip(
                batch.rows, written.trace_texts, written.answer_texts, written.marker_emitted.tolist(), strict=True
            )
        ]

    def describe(self) -> dict[str, str]:
        """The method's parts and settings, as text."""
        parts = ("aggregator", "advantage", "token_weights", "loss", "reference", "sampling")
        return {part: repr(getattr(self, part)) for part in parts}


def rollouts_of(batch: Any) -> Rollouts:
    """The batch's rollouts, or an error that says who should have made them."""
    rollouts = getattr(batch, "rollouts", None)
    if rollouts is None:
        raise InputError(
            f"training_step got a {type(batch).__name__} without rollouts: the OnPolicyRollout callback fills them in."
        )
    return rollouts


def check_parts(advantage: AdvantageEstimator, loss: NRTLoss, reference: Reference, sampling: Sampling) -> None:
    """Refuse parts that cannot work together."""
    if advantage.needs_group and sampling.group_size < 2:
        raise InputError(
            f"sampling.group_size is {sampling.group_size}, but {advantage} compares the traces of a group: "
            "every advantage would be 0. Set group_size to 2 or more."
        )
    if loss.kl_coef and not reference.available:
        raise InputError(
            f"loss.kl_coef is {loss.kl_coef}, but there is no reference. Set reference to FrozenReference."
        )
