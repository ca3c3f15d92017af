"""Parts of a method that cannot work together are refused before any weights are read, and idle ones named."""

from __future__ import annotations

import logging

from nrt_lightning.advantages import AdvantageEstimator
from nrt_lightning.errors import InputError
from nrt_lightning.filters import GroupFilter
from nrt_lightning.functional import check_at_least
from nrt_lightning.losses import NRTLoss
from nrt_lightning.models import BaselineScorer, Reference
from nrt_lightning.rewards import KLPenalty, RewardAggregator, TokenWeighting
from nrt_lightning.signals import SignalCombiner
from nrt_lightning.structures import Sampling
from nrt_lightning.training.method import Method

log = logging.getLogger(__name__)


def check_parts(method: Method) -> None:
    """Refuse parts that cannot work together, and warn of those that nothing uses.

    Raises:
        InputError: naming them and the mend.
    """
    check_advantage(method.advantage, method.sampling)
    for part in (method.advantage, method.token_weights):
        check_logprobs(part, method.aggregator, method.signals)
    if method.signals is not None:
        check_signals(method.signals, method.advantage, method.sampling)
    if method.train_response:
        check_response(method.loss, method.sampling)
    check_filters(method.filters, method.sampling)
    check_models(method.reference, method.baseline_scorer, method.kl_penalty, method.loss, method.sampling)
    warn_of_idle(method)


def check_advantage(advantage: AdvantageEstimator, sampling: Sampling) -> None:
    """Refuse an advantage without a group."""
    if advantage.needs_group and sampling.group_size < 2:
        raise InputError(
            f"sampling.group_size is {sampling.group_size}, but {advantage} compares the traces of a group: "
            "every advantage would be 0. Set group_size to 2 or more."
        )


def check_logprobs(
    part: AdvantageEstimator | TokenWeighting, aggregator: RewardAggregator, signals: SignalCombiner | None
) -> None:
    """Refuse a part that takes log-probs for rewards where these are something else."""
    if part.needs_logprobs and signals is None and not aggregator.gives_logprobs:
        raise InputError(f"{part} needs log-probs for rewards, not {aggregator}. Set aggregator to LogProb.")


def check_signals(signals: SignalCombiner, advantage: AdvantageEstimator, sampling: Sampling) -> None:
    """Refuse signals that the advantage or the sampling cannot serve."""
    if advantage.needs_baseline:
        raise InputError(
            f"{advantage} compares the reward with that of the empty trace, which has no signals. Set its baseline to "
            "none, and take the confidence as the signal GainOverBaseline, with clip: true for a clipped one."
        )
    if signals.needs_group and sampling.group_size < 2:
        names = [name for name, signal in signals.signals.items() if signal.needs_group]
        raise InputError(
            f"sampling.group_size is {sampling.group_size}, but signals.{names[0]} compares the traces of a group. "
            "Set group_size to 2 or more."
        )


def check_response(loss: NRTLoss, sampling: Sampling) -> None:
    """Refuse responses whose parts were not drawn alike, or whose sampler is to be corrected for."""
    own = sampling.answer_temperature
    if own not in (None, sampling.temperature):
        raise InputError(
            f"sampling.answer_temperature is {own} and sampling.temperature {sampling.temperature}, but train_response "
            "trains both as one sample of the policy. Set answer_temperature to null."
        )
    if loss.sampler_correction:
        raise InputError(
            "loss.sampler_correction knows the sampler's log-probs of traces alone, and train_response trains answers "
            "too. Set sampler_correction to null, that of the engine too."
        )


def check_filters(filters: list[GroupFilter], sampling: Sampling) -> None:
    """Refuse filters that cannot work."""
    for filter_ in filters:
        if filter_.needs_group and sampling.group_size < 2:
            raise InputError(
                f"sampling.group_size is {sampling.group_size}, but {filter_} compares the traces of a group: it would "
                "drop them all. Set group_size to 2 or more."
            )
    check_at_least("sampling.refill_rounds", sampling.refill_rounds, 0)
    if sampling.refill_rounds and not filters:
        raise InputError(
            f"sampling.refill_rounds is {sampling.refill_rounds}, but nothing filters groups. Give filters, or "
            "set refill_rounds to 0."
        )


def check_models(
    reference: Reference,
    baseline_scorer: BaselineScorer,
    kl_penalty: KLPenalty | None,
    loss: NRTLoss,
    sampling: Sampling,
) -> None:
    """Refuse a KL term, a baseline, a penalty or a correction that lacks what it needs."""
    if loss.kl_coef and not reference.available:
        raise InputError(
            f"loss.kl_coef is {loss.kl_coef}, but there is no reference. Set reference to FrozenReference."
        )
    baseline_scorer.check(reference)
    if kl_penalty and not reference.available:
        raise InputError(
            f"kl_penalty is {kl_penalty}, but there is no reference. Set reference, for instance to FrozenReference."
        )
    if loss.sampler_correction and sampling.temperature == 0:
        raise InputError(
            "loss.sampler_correction weighs traces by their probabilities, and sampling.temperature is 0: greedy "
            "traces have none. Set a temperature above 0, or sampler_correction to null, that of the engine too."
        )


def warn_of_idle(method: Method) -> None:
    """Say so where a reference or a baseline scorer was given and nothing uses it."""
    scorer, reference = method.baseline_scorer, method.reference
    if not scorer.from_policy_forward and not method.needs_baseline:
        log.warning("baseline_scorer is %s, but neither reward, advantage nor filters use a baseline.", scorer)
    used = method.needs_reference or scorer.needs_reference
    if reference.available and not used:
        log.warning("reference is %s, but nothing uses it: loss.kl_coef is 0 and kl_penalty is null.", reference)
