"""A method: what rollouts are worth, and the loss that follows. The parts of a training step, without a trainer."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from nrt_lightning.advantages import AdvantageEstimator
from nrt_lightning.filters import GroupFilter
from nrt_lightning.functional import pack_segment, unpack_segment
from nrt_lightning.losses import NRTLoss, WholeBatch, sampled_tokens
from nrt_lightning.models import BaselineScorer, Policy, Reference
from nrt_lightning.rewards import KLPenalty, OverlongTraces, RewardAggregator, TokenWeighting
from nrt_lightning.signals import ScoreEvidence, SignalCombiner
from nrt_lightning.structures import Judgement, LossOutput, Rollouts, Sampling, Scores, TraceReward


class Method:
    """From rollouts to scores, from scores to a judgement, from both to a loss.

    `NRTModule` is one, and describes the parts.
    """

    policy: Policy
    aggregator: RewardAggregator
    signals: SignalCombiner | None
    advantage: AdvantageEstimator
    token_weights: TokenWeighting
    loss: NRTLoss
    reference: Reference
    sampling: Sampling
    train_response: bool
    filters: list[GroupFilter]
    baseline_scorer: BaselineScorer
    overlong: OverlongTraces
    kl_penalty: KLPenalty | None
    mean_over_processes: Callable[[Tensor], Tensor]

    def score(self, rollouts: Rollouts) -> Scores:
        """What the models say of the rollouts; the baseline too where the window has not been scored."""
        scores = self.score_answers(rollouts)
        scores.ref_logprobs = rollouts.ref_logprobs  # [N, C]
        if self.needs_reference and rollouts.ref_logprobs is None:
            scores.ref_logprobs = self.reference.logprobs(rollouts)
        return scores

    def score_answers(self, rollouts: Rollouts) -> Scores:
        """As `score`, without the reference: all that a reward takes."""
        known, from_policy_forward = (
            rollouts.judged.baseline_logprobs,
            self.baseline_scorer.from_policy_forward,
        )  # [B, T]
        scores = self.policy.score(rollouts, baseline=self.needs_baseline and from_policy_forward and known is None)
        if known is not None:
            scores.baseline_logprobs = known
        elif self.needs_baseline and not from_policy_forward:
            scores.baseline_logprobs = self.baseline_scorer.logprobs(rollouts)
        return scores

    def judge(self, rollouts: Rollouts, scores: Scores) -> Judgement:
        """Rewards, advantages and the answer's token weights."""
        judged = rollouts.judged  # the same, but where whole responses are trained
        # Noted where the window was scored before its first step; else the training forward's own.
        old_logprobs = scores.logprobs.detach() if rollouts.old_logprobs is None else rollouts.old_logprobs  # [N, C]
        answered = old_logprobs if judged.old_logprobs is None else judged.old_logprobs  # [N, C]
        reward, baseline = self.reward(judged, answered, scores.baseline_logprobs)
        reward.value = self.overlong.rewards(reward.value, judged, self.sampling.max_trace_tokens)  # [N]
        if self.kl_penalty and scores.ref_logprobs is not None:
            sampled = sampled_tokens(rollouts.segments)  # [N, C]
            reward.value = self.kl_penalty(reward.value, old_logprobs, scores.ref_logprobs, sampled)
        advantages = rollouts.advantages  # [N]
        if advantages is None:
            advantages = self.advantage(reward.value, rollouts.group_ids, baseline)
        return Judgement(old_logprobs, reward, baseline, advantages, self.answer_weights(rollouts, reward))

    def reward(
        self, rollouts: Rollouts, logprobs: Tensor, baseline_logprobs: Tensor | None
    ) -> tuple[TraceReward, Tensor | None]:
        """The trace rewards, and the empty trace's for the same rows [N] where the baseline is known.

        Rewards of a group follow from that group alone. Signals leave the empty trace without a reward.

        Args:
            rollouts: N completions.
            logprobs: of the policy that sampled them, [N, C].
            baseline_logprobs: of the answers after the empty trace, [B, T].
        """
        rows, width = rollouts.group_ids, rollouts.answer_ids.shape[1]
        mask = rollouts.answer_mask[rows]  # [N, T]
        confidences = pack_segment(logprobs, rollouts.segments.answer_mask, width)  # [N, T]
        baseline = None if baseline_logprobs is None else baseline_logprobs[rows]  # [N, T]
        reward = self.aggregator(confidences, mask, baseline)
        if self.signals is not None:
            values = self.signals.values(ScoreEvidence(rollouts, confidences, mask, baseline))
            return TraceReward(self.signals.combine(values), reward.token_weights, values), None
        if baseline_logprobs is None:
            return reward, None
        empty = self.aggregator(baseline_logprobs, rollouts.answer_mask, baseline_logprobs).value  # [B]
        return reward, empty[rows]

    def answer_weights(self, rollouts: Rollouts, reward: TraceReward) -> Tensor:
        """The answer term's weights, in their places in the completions. [N, C]"""
        mask = rollouts.answer_mask[rollouts.group_ids]  # [N, T]
        weights = self.token_weights(reward.token_weights, mask, rollouts.group_ids, reward.value)  # [N, T]
        return unpack_segment(weights, rollouts.segments.answer_mask)

    def loss_of(
        self, rollouts: Rollouts, scores: Scores, judgement: Judgement, whole: WholeBatch | None = None
    ) -> LossOutput:
        """The loss, with gradient into `scores.logprobs`."""
        return self.loss(
            scores.logprobs,
            judgement.old_logprobs,
            rollouts.loss_segments,
            judgement.advantages,
            judgement.token_weights,
            scores.ref_logprobs,
            whole,
            rollouts.sampling_logprobs,
            self.mean_over_processes,
        )

    def couples_groups(self, rollouts: Rollouts) -> bool:
        """Whether the loss of a group depends on the log-probs of other groups in the batch."""
        return rollouts.old_logprobs is not None and self.loss.needs_full_batch

    @property
    def needs_baseline(self) -> bool:
        """Whether the answer must be scored after the empty trace."""
        filters = any(filter_.needs_baseline for filter_ in self.filters)
        signals = self.signals is not None and self.signals.needs_baseline
        return self.aggregator.needs_baseline or self.advantage.needs_baseline or filters or signals

    @property
    def needs_own_answers(self) -> bool:
        """Whether the policy must write an answer of its own after every trace, for signals or to be trained on."""
        return self.train_response or (self.signals is not None and self.signals.needs_policy_answers)

    @property
    def needs_reference(self) -> bool:
        """Whether the reference must score the rollouts."""
        return bool(self.loss.kl_coef) or self.kl_penalty is not None

    @property
    def needs_window(self) -> bool:
        """Whether `judge_window` must see every window before its first step."""
        return bool(self.filters) or self.advantage.needs_batch

    @property
    def needs_sampling_logprobs(self) -> bool:
        """Whether the engine must give log-probs."""
        return self.loss.sampler_correction is not None

    def describe(self) -> dict[str, str]:
        """The method's parts and settings, as text."""
        parts = ("aggregator", "signals", "advantage", "token_weights", "loss", "reference", "sampling")
        more = ("filters", "baseline_scorer", "overlong", "kl_penalty", "train_response")
        return {part: repr(getattr(self, part)) for part in parts + more}
