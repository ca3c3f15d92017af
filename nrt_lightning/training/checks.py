"""Checks of a method before any weights are read."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from nrt_lightning.advantages import AdvantageEstimator
from nrt_lightning.errors import InputError
from nrt_lightning.filters import GroupFilter
from nrt_lightning.functional import check_at_least
from nrt_lightning.losses import NRTLoss
from nrt_lightning.rewards import OverlongTraces, RewardAggregator, TokenWeighting
from nrt_lightning.rollouts.engine import RolloutEngine
from nrt_lightning.signals import SignalCombiner
from nrt_lightning.structures import Sampling
from nrt_lightning.training.method import Method

log = logging.getLogger(__name__)


def method_of(pl_module: Any, reader: str) -> Method:
    """The method of a LightningModule.

    Args:
        pl_module: the module.
        reader: the class that reads the method, for the error.

    Raises:
        InputError: the module has no method, or Lightning would not find the weights of its policy.
    """
    method, name = getattr(pl_module, "method", None), type(pl_module).__name__
    if not isinstance(method, Method):
        raise InputError(
            f"{reader} reads the method of the module, and {name}.method is {method!r}. Set self.method to "
            "Method(policy, ...), or use NRTModule."
        )
    if all(module is not method.policy for module in pl_module.modules()):
        raise InputError(
            f"{name}.method.policy is not a submodule of {name}, so Lightning would neither move, train nor save its "
            "weights. Set self.policy = self.method.policy."
        )
    return method


def check_method(method: Method) -> None:
    """Refuse parts that cannot work together.

    Raises:
        InputError: naming the settings.
    """
    method.reference.check(method.policy)
    check_advantage(method.advantage, method.sampling)
    check_nonnegative(method)
    for part in (method.advantage, method.token_weights, method.overlong):
        check_logprobs(part, method.aggregator, method.signals)
    if method.signals is not None:
        check_signals(method.signals, method.advantage, method.sampling)
    if method.train_response:
        check_response(method.loss, method.sampling)
    check_filters(method.filters, method.sampling)
    check_conditioned(method)
    if method.step_credit is not None:
        method.step_credit.segmentation.check(method.policy.tokenizer)
    check_models(method)


def check_advantage(advantage: AdvantageEstimator, sampling: Sampling) -> None:
    """Refuse an advantage without a group."""
    if advantage.needs_group and sampling.group_size < 2:
        raise InputError(
            f"sampling.group_size is {sampling.group_size}, but {advantage} compares the traces of a group: "
            "every advantage would be 0. Set group_size to 2 or more."
        )


def check_logprobs(
    part: AdvantageEstimator | TokenWeighting | OverlongTraces,
    aggregator: RewardAggregator,
    signals: SignalCombiner | None,
) -> None:
    """Refuse a part that takes log-probs for rewards where these are something else."""
    if part.needs_logprobs and signals is None and not aggregator.gives_logprobs:
        raise InputError(f"{part} needs log-probs for rewards, not {aggregator}. Set aggregator to LogProb.")


def check_nonnegative(method: Method) -> None:
    """Refuse rewards that can be negative for an advantage that divides by their mean."""
    if not method.advantage.needs_nonnegative:
        return
    reward = method.aggregator if method.signals is None else method.signals
    if reward.minimum < 0 and method.signals is not None:
        name, signal = min(method.signals.signals.items(), key=lambda item: item[1].minimum)
        cause = f"signals.{name} ({signal}) makes it as low as {reward.minimum:.3g}"
    elif reward.minimum < 0:
        cause = f"aggregator {reward} makes it as low as {reward.minimum:.3g}"
    elif method.overlong.lowers_rewards:
        cause = f"overlong {method.overlong} lowers it"
    elif method.kl_penalty is not None:
        cause = f"kl_penalty {method.kl_penalty} lowers it"
    else:
        return
    raise InputError(
        f"advantage {method.advantage} needs rewards of at least 0, and {cause}. Choose a reward from 0 to 1, such as "
        "ExactMatch, or another advantage."
    )


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


def check_conditioned(method: Method) -> None:
    """Refuse methods that cannot learn from traces that saw the answer."""
    if method.answer_conditioned is not None and method.train_response:
        raise InputError(
            "answer_conditioned draws traces with the answer in the prompt, and train_response trains the answers that "
            "the policy writes after them, too. Set train_response to false, or answer_conditioned to null."
        )


def check_sampled(method: Method) -> None:
    """Refuse to train on traces of another distribution than the one whose log-probs are trained.

    Raises:
        InputError: the temperature or the length is 0, or top_p or top_k cuts the distribution and nothing corrects
            for it.
    """
    sampling = method.sampling
    check_at_least("sampling.max_trace_tokens", sampling.max_trace_tokens, 1)
    if sampling.temperature == 0:
        raise InputError(
            "sampling.temperature is 0, which is for evaluation: all traces of a group would be the same. Set it above "
            "0 to train."
        )
    cut = f"sampling.top_p is {sampling.top_p}" if sampling.top_p < 1 else f"sampling.top_k is {sampling.top_k}"
    if (sampling.top_p < 1 or sampling.top_k > 0) and method.loss.sampler_correction is None:
        fix = "" if method.train_response else ", or set loss.sampler_correction to TruncatedImportance"
        raise InputError(
            f"{cut}, so traces are not samples of the policy that is trained. Set top_p to 1 and top_k to 0{fix}."
        )


def check_filters(filters: list[GroupFilter], sampling: Sampling) -> None:
    """Refuse filters that cannot work."""
    for filter_ in filters:
        if filter_.needs_group and sampling.group_size < 2:
            raise InputError(
                f"sampling.group_size is {sampling.group_size}, but {filter_} compares the traces of a group: it would "
                "drop them all. Set group_size to 2 or more."
            )
    if sampling.refill_rounds and not filters:
        raise InputError(
            f"sampling.refill_rounds is {sampling.refill_rounds}, but nothing filters groups. Give filters, or "
            "set refill_rounds to 0."
        )


def check_models(method: Method) -> None:
    """Refuse a KL term, a baseline, a penalty or a correction that lacks what it needs."""
    loss, engine, available = method.loss, method.engine, method.reference.available
    if loss.kl_coef and not available:
        raise InputError(
            f"loss.kl_coef is {loss.kl_coef}, but there is no reference. Set reference to FrozenReference."
        )
    method.baseline_scorer.check(method.reference)
    if method.kl_penalty and not available:
        raise InputError(
            f"kl_penalty is {method.kl_penalty}, but there is no reference. Set reference, for instance to "
            "FrozenReference."
        )
    if engine.sampler_correction is not None and loss.sampler_correction is None:
        raise InputError(
            f"engine {type(engine).__name__} samples with weights of its own, and loss.sampler_correction is null. Set "
            "it to TruncatedImportance, or sampler_correction of the engine to null, too."
        )
    if loss.sampler_correction and method.sampling.temperature == 0:
        raise InputError(
            "loss.sampler_correction weighs traces by their probabilities, and sampling.temperature is 0: greedy "
            "traces have none. Set a temperature above 0, or sampler_correction to null, that of the engine too."
        )


def warn_of_idle_parts(method: Method) -> None:
    """Warn of a reference or a baseline scorer that nothing uses."""
    scorer, reference = method.baseline_scorer, method.reference
    if not scorer.from_policy_forward and not method.needs_baseline:
        log.warning("baseline_scorer is %s, but neither reward, advantage nor filters use a baseline.", scorer)
    if reference.available and not (method.needs_reference or scorer.needs_reference):
        log.warning("reference is %s, but nothing uses it: loss.kl_coef is 0 and kl_penalty is null.", reference)


def corrected(loss: NRTLoss, engine: RolloutEngine) -> NRTLoss:
    """The loss with the correction that the engine asks for, unless it has one of its own."""
    if loss.sampler_correction is not None or engine.sampler_correction is None:
        return loss
    return dataclasses.replace(loss, sampler_correction=engine.sampler_correction)
