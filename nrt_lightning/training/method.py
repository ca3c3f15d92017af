"""A method: rewards of rollouts, and the loss that follows from them. A training step without a trainer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nrt_lightning.advantages import AdvantageEstimator, GroupNormalized
from nrt_lightning.filters import GroupFilter
from nrt_lightning.functional import pack_segment, unpack_segment
from nrt_lightning.losses import LossInputs, NRTLoss, WholeBatch, sampled_tokens
from nrt_lightning.models import BaselineScorer, NoReference, Policy, PolicyBaseline, Reference
from nrt_lightning.models.scoring.entropies import entropy_gradient
from nrt_lightning.rewards import (
    FixedTokenWeights,
    KeepOverlong,
    KLPenalty,
    OverlongTraces,
    RewardAggregator,
    TokenWeighting,
    WeightedSum,
)
from nrt_lightning.rollouts import RolloutEngine, TransformersEngine
from nrt_lightning.signals import ScoreEvidence, SignalCombiner
from nrt_lightning.structures import Credit, LossOutput, Prompts, Rollouts, Sampling, Scores, TraceReward
from nrt_lightning.training.conditioned import AnswerConditioned
from nrt_lightning.training.needs import Needs
from nrt_lightning.training.parts import advantages_by, check_types, reward_by
from nrt_lightning.training.steps import StepGains


@dataclass
class Method(Needs):
    """How traces are sampled, rewarded and learned from (arXiv 2602.11549).

    A LightningModule keeps it as `self.method`, and its policy as `self.policy` too, so that Lightning finds the
    weights. `OnPolicyRollout` and the other callbacks read it there. A training step is three calls:

    ```
    scores = method.score(batch)                       # log-probs, with gradient
    credit = method.assign_credit(batch, scores)       # rewards, advantages, token weights
    loss = method.compute_loss(batch, scores, credit).loss
    ```

    `NRTModule` describes the fields. A loss without a `sampler_correction` takes the engine's.

    Example:
        >>> Method(Policy("embedded:registers-base"), sampling=Sampling(group_size=4)).needs_baseline
        True
    """

    policy: Policy
    aggregator: RewardAggregator = field(default_factory=WeightedSum)
    signals: SignalCombiner | None = None
    advantage: AdvantageEstimator = field(default_factory=GroupNormalized)
    token_weights: TokenWeighting = field(default_factory=FixedTokenWeights)
    loss: NRTLoss = field(default_factory=NRTLoss)
    reference: Reference = field(default_factory=NoReference)
    sampling: Sampling = field(default_factory=Sampling)
    engine: RolloutEngine = field(default_factory=TransformersEngine)
    filters: list[GroupFilter] = field(default_factory=list)
    baseline_scorer: BaselineScorer = field(default_factory=PolicyBaseline)
    overlong: OverlongTraces = field(default_factory=KeepOverlong)
    kl_penalty: KLPenalty | None = None
    train_response: bool = field(default=False, kw_only=True)
    answer_conditioned: AnswerConditioned | None = None
    step_credit: StepGains | None = None

    def __post_init__(self) -> None:
        check_types(self)
        if self.loss.sampler_correction is None and self.engine.sampler_correction is not None:
            self.loss = dataclasses.replace(self.loss, sampler_correction=self.engine.sampler_correction)

    # Scores

    def score(self, batch: Prompts) -> Scores:
        """Score the rollouts that are trained, with gradient where it is enabled.

        The log-probs of other models are taken from `old_scores` where they were computed before.
        """
        trained, old = batch.trained, batch.trained.old_scores
        answers = batch.responses is None and old is None
        scores = self.score_trained(trained, answers=answers)
        if old is not None:
            scores.baseline_logprobs, scores.ref_logprobs = old.baseline_logprobs, old.ref_logprobs
        elif answers:
            scores = self.add_baseline(trained, scores)
        return self.add_reference(trained, scores)

    def score_trained(self, rollouts: Rollouts, *, answers: bool = False) -> Scores:
        """`score_rollouts` with the policy, with what the loss needs a gradient of."""
        with entropy_gradient(enabled=self.loss.entropy_bonus is not None):
            return self.score_rollouts(rollouts, self.policy, answers=answers)

    def score_rollouts(self, rollouts: Rollouts, policy: Policy, *, answers: bool) -> Scores:
        """Score rollouts with a policy alone.

        Args:
            rollouts: N completions of B prompts.
            policy: that scores.
            answers: score the answers after the empty trace too, if the method needs this baseline of a policy.
        """
        baseline = answers and self.needs_baseline and self.baseline_scorer.from_policy_forward
        return policy.score(rollouts, baseline=baseline)

    def add_baseline(self, rollouts: Rollouts, scores: Scores) -> Scores:
        """The scores with the baseline, where another model than the policy gives it."""
        if not self.needs_baseline or self.baseline_scorer.from_policy_forward:
            return scores
        return dataclasses.replace(scores, baseline_logprobs=self.baseline_scorer.logprobs(rollouts))

    def add_reference(self, rollouts: Rollouts, scores: Scores) -> Scores:
        """The scores with the reference's log-probs, where they are needed and missing."""
        if not self.needs_reference or scores.ref_logprobs is not None:
            return scores
        return dataclasses.replace(scores, ref_logprobs=self.reference.logprobs(rollouts))

    # Rewards and credit

    def compute_rewards(self, batch: Prompts, scores: Scores | None = None) -> TraceReward:
        """Trace rewards of a batch, penalties included. Rewards of a group depend on that group alone.

        Args:
            batch: with rollouts.
            scores: of the rollouts that are trained; None: their `old_scores`, and those of the reference answers.

        Returns:
            The rewards `[N]`. Their token weights are 0 where nothing reads them.
        """
        reward = self._confidence_reward(batch, scores)
        reward.value = self.overlong.rewards(reward.value, batch.sampled, self.sampling.max_trace_tokens)
        sampled = batch.trained.old_scores or scores
        if self.kl_penalty is not None and sampled is not None:
            known = sampled.ref_logprobs if scores is None else scores.ref_logprobs  # [N, C]
            assert known is not None, "score with the reference first"
            tokens = sampled_tokens(batch.trained.segments)  # [N, C]
            reward.value = self.kl_penalty(reward.value, sampled.logprobs.detach(), known, tokens)
        if batch.sampled.conditioning is not None:  # not finite: left out of its group
            reward.value = reward.value.masked_fill(batch.sampled.conditioning.refused, torch.nan)
        return reward

    def loss_rows(self, rollouts: Rollouts) -> Tensor | None:
        """The rollouts that carry a loss, as far as their rewards do not matter, `[N]` bool; None for all."""
        rows = self.overlong.loss_rows(rollouts)
        if rollouts.conditioning is None:
            return rows
        kept = ~rollouts.conditioning.refused
        return kept if rows is None else rows & kept

    def _confidence_reward(self, batch: Prompts, scores: Scores | None) -> TraceReward:
        """The reward by the aggregator or by signals, without penalties."""
        rollouts = batch.sampled
        rows, width = rollouts.group_ids, rollouts.answer_ids.shape[1]
        mask = rollouts.answer_mask[rows]  # [N, T]
        found = rollouts.old_scores or (scores if batch.responses is None else None)
        logprobs = baseline = None  # [N, T] of the answers after the trace, and after the empty trace
        if found is not None:
            logprobs = pack_segment(found.logprobs.detach(), rollouts.segments.answer_mask, width)
            baseline = None if found.baseline_logprobs is None else found.baseline_logprobs[rows]
        if self.signals is not None:
            values = self.signals.values(ScoreEvidence(rollouts, logprobs, mask, baseline))
            weights = mask.float() * 0
            if self.needs_derived_weights and logprobs is not None:
                weights = self.aggregator(logprobs, mask, baseline).token_weights
            return TraceReward(self.signals.combine(values, rollouts.group_ids), weights, values)
        assert logprobs is not None, "score the answers first"
        reward = reward_by(self.aggregator, logprobs, mask, baseline, rows)
        if found is not None and found.baseline_logprobs is not None:
            empty = self.aggregator(found.baseline_logprobs, rollouts.answer_mask, found.baseline_logprobs).value  # [B]
            reward.baseline = empty[rows]
        return reward

    def assign_credit(self, batch: Prompts, scores: Scores | None = None) -> Credit:
        """Rewards, advantages and token weights; those of the window where they were assigned before its first step.

        Args:
            batch: with rollouts.
            scores: as in `compute_rewards`.
        """
        trained, rollouts = batch.trained, batch.sampled
        if trained.credit is not None:
            return trained.credit
        reward = self.compute_rewards(batch, scores)
        advantages = advantages_by(self.advantage, reward.value, rollouts.group_ids, reward.baseline)  # [N]
        advantages = self.by_step(advantages, batch)
        answers = rollouts.answer_mask[rollouts.group_ids]  # [N, T]
        weights = self.token_weights(reward.token_weights, answers, rollouts.group_ids, reward.value)  # [N, T]
        if batch.responses is not None:  # they hold no reference answer
            weights = weights.new_zeros(len(trained), 0)
        placed = unpack_segment(weights, trained.segments.answer_mask)  # [N, C]
        return Credit(reward, advantages, placed, self.loss_rows(rollouts))

    def by_step(self, advantages: Tensor, batch: Prompts) -> Tensor:
        """The advantages `[N]` of traces as those of their tokens, `[N, C]`, where steps have credit of their own."""
        if self.step_credit is None or batch.sampled.steps is None:
            return advantages
        return self.step_credit(advantages, batch.sampled, batch.trained.completion_ids.shape[1])

    def compute_loss(
        self,
        batch: Prompts,
        scores: Scores,
        credit: Credit,
        whole: WholeBatch | None = None,
        mean: Callable[[Tensor], Tensor] | None = None,
    ) -> LossOutput:
        """The loss, with gradient into `scores.logprobs`.

        Args:
            batch: with rollouts.
            scores: of the rollouts that are trained.
            credit: of `assign_credit`.
            whole: the batch that this one is a part of; None: it is no part.
            mean: of a tensor over processes; None: there is one process.
        """
        trained = batch.trained
        old = scores if trained.old_scores is None else trained.old_scores
        importance, drawn = self._conditioned(trained, old.logprobs.detach())
        inputs = LossInputs(
            logprobs=scores.logprobs,
            old_logprobs=old.logprobs.detach(),
            segments=trained.segments.only(credit.loss_rows),
            advantages=credit.advantages,
            token_weights=credit.token_weights,
            ref_logprobs=scores.ref_logprobs,
            sampling_logprobs=trained.sampling_logprobs,
            importance=importance,
            drawn_logprobs=drawn,
            entropy=scores.entropy if self.loss.entropy_bonus else None,
        )
        return self.loss(inputs, whole=whole, mean=mean)

    def _conditioned(self, rollouts: Rollouts, old: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Importance weights of traces that saw the answer, and their log-probs as they were drawn. `[N, C]` each"""
        of, settings = rollouts.conditioning, self.answer_conditioned
        if of is None or of.logprobs is None or settings is None:
            return None, None
        drawn = torch.where(of.drawn.unsqueeze(1), of.logprobs.to(old.dtype), old)
        if settings.correction is None:
            return None, drawn
        return settings.correction(old, of.logprobs, of.share, sampled_tokens(rollouts.segments)), drawn

    def describe(self) -> dict[str, str]:
        """The parts and settings of the method, as text."""
        skipped = ("policy", "engine")
        return {f.name: repr(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name not in skipped}
