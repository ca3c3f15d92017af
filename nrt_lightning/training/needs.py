"""What the parts of a method need from each other."""

from __future__ import annotations

from nrt_lightning.advantages import AdvantageEstimator
from nrt_lightning.filters import GroupFilter
from nrt_lightning.losses import NRTLoss
from nrt_lightning.models import BaselineScorer
from nrt_lightning.rewards import KLPenalty, OverlongTraces, RewardAggregator, TokenWeighting
from nrt_lightning.signals import SignalCombiner
from nrt_lightning.training.conditioned import AnswerConditioned


class Needs:
    """The needs of a `Method`, which follow from its parts."""

    aggregator: RewardAggregator
    signals: SignalCombiner | None
    advantage: AdvantageEstimator
    token_weights: TokenWeighting
    loss: NRTLoss
    filters: list[GroupFilter]
    baseline_scorer: BaselineScorer
    overlong: OverlongTraces
    kl_penalty: KLPenalty | None
    train_response: bool
    answer_conditioned: AnswerConditioned | None

    @property
    def needs_derived_weights(self) -> bool:
        """True if the answer term reads the token weights of the aggregator."""
        return self.token_weights.needs_derived and bool(self.loss.answer_coef) and not self.train_response

    @property
    def needs_baseline(self) -> bool:
        """True if the answers must be scored after the empty trace."""
        filters = any(filter_.needs_baseline for filter_ in self.filters)
        derived = self.needs_derived_weights and self.aggregator.needs_baseline
        reward = self.aggregator if self.signals is None else self.signals
        return reward.needs_baseline or derived or self.advantage.needs_baseline or filters

    @property
    def needs_answer_logprobs(self) -> bool:
        """True if rewards, filters or token weights read the log-probs of the reference answers."""
        filters = any(filter_.needs_answer_logprobs for filter_ in self.filters)
        reward = self.signals is None or self.signals.needs_answer_logprobs
        return reward or filters or self.needs_derived_weights or self.needs_baseline

    @property
    def needs_policy_answers(self) -> bool:
        """True if the policy must write an answer after every trace, for signals or to be trained on."""
        return self.train_response or (self.signals is not None and self.signals.needs_policy_answers)

    @property
    def needs_reference(self) -> bool:
        """True if the reference must score the rollouts."""
        return bool(self.loss.kl_coef) or self.kl_penalty is not None

    @property
    def needs_conditioned_logprobs(self) -> bool:
        """True if traces that see the answer must be scored after the prompt that shows it."""
        settings = self.answer_conditioned
        return settings is not None and (settings.correction is not None or self.loss.sampler_correction is not None)

    @property
    def needs_window(self) -> bool:
        """True if filters or the advantage read a whole window before its first step."""
        return bool(self.filters) or self.advantage.needs_batch or self.overlong.needs_batch

    @property
    def needs_sampling_logprobs(self) -> bool:
        """True if the engine must return log-probs."""
        return self.loss.sampler_correction is not None
