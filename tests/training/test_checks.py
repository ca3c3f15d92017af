"""What nothing uses is said; what cannot work together is refused, see `tests/modules` and `tests/cli`."""

from __future__ import annotations

import pytest
import torch
from torch.optim import SGD, AdamW

from nrt_lightning import (
    ConstantSchedule,
    EMAReference,
    FrozenReference,
    GeometricMean,
    GroupNormalized,
    InitialBaseline,
    InputError,
    KLPenalty,
    LogProb,
    NRTLoss,
    NRTModule,
    Policy,
    PosteriorTokenWeights,
    ReferenceBaseline,
    SFTModule,
    ZeroVarianceFilter,
)
from nrt_lightning.modules.schedules import optimizer_of
from nrt_lightning.structures import TraceReward
from nrt_lightning.training.checks import warn_of_idle_parts
from nrt_lightning.training.parts import advantages_by, reward_by


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, ""),
        ({"reference": FrozenReference()}, "reference is FrozenReference"),
        ({"reference": EMAReference(), "loss": NRTLoss(kl_coef=0.1)}, ""),
        ({"reference": FrozenReference(), "kl_penalty": KLPenalty()}, ""),
        ({"reference": FrozenReference(), "baseline_scorer": ReferenceBaseline()}, ""),
        ({"baseline_scorer": InitialBaseline()}, ""),
        ({"baseline_scorer": InitialBaseline(), "aggregator": GeometricMean()}, "baseline_scorer is InitialBaseline"),
    ],
)
def test_parts_that_nothing_uses_are_named(settings: dict, said: str, caplog: pytest.LogCaptureFixture) -> None:
    warn_of_idle_parts(NRTModule(Policy("embedded:registers-base"), **settings).method)
    messages = [record.message for record in caplog.records if record.name == "nrt_lightning.training.checks"]
    assert len(messages) == bool(said)
    assert said in "".join(messages)


def test_posterior_weights_take_log_probs() -> None:
    NRTModule(Policy("embedded:registers-base"), aggregator=LogProb(), token_weights=PosteriorTokenWeights())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"aggregator": GeometricMean}, r"model\.aggregator is the class GeometricMean\. .*, GeometricMean\(\)\."),
        ({"aggregator": "GeometricMean"}, r"model\.aggregator is 'GeometricMean'.*'GeometricMean\(\)'"),
        (
            {"aggregator": lambda logprobs, mask: logprobs},
            r"model\.aggregator .*type function.*RewardAggregator",
        ),
        ({"aggregator": None}, r"model\.aggregator is None.*RewardAggregator"),
        ({"advantage": GroupNormalized}, r"model\.advantage is the class GroupNormalized\. .*GroupNormalized\(\)"),
        ({"filters": ZeroVarianceFilter()}, r"model\.filters is ZeroVarianceFilter\(.*list"),
        ({"filters": [ZeroVarianceFilter]}, r"model\.filters\[0\] is the class ZeroVarianceFilter"),
        ({"loss": "NRTLoss"}, r"model\.loss is 'NRTLoss'"),
        ({"sampling": {"group_size": 4}}, r"model\.sampling is \{'group_size': 4\}.*Sampling"),
        ({"signals": GeometricMean()}, r"model\.signals is GeometricMean\(\).*SignalCombiner"),
        ({"train_response": "false"}, r"model\.train_response is 'false', which is no bool"),
        ({"policy": "gpt2"}, r"model\.policy is 'gpt2'.*Policy"),
        ({"schedule": ConstantSchedule}, r"model\.schedule is the class ConstantSchedule"),
        ({"optimizer": {"lr": 0.1}}, r"model\.optimizer is \{'lr': 0\.1\}.*function"),
        ({"optimizer": SGD([torch.nn.Parameter(torch.ones(1))], 0.1)}, r"model\.optimizer is .*function"),
    ],
)
def test_parts_of_another_type_are_refused_before_weights_are_read(settings: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        NRTModule(**{"policy": Policy("embedded:registers-base")} | settings)


def test_other_modules_refuse_them_too() -> None:
    with pytest.raises(InputError, match=r"model\.optimizer is"):
        SFTModule(Policy("embedded:registers-base"), optimizer=0.1)


def test_an_optimizer_needs_weights_and_is_one() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    assert isinstance(optimizer_of(AdamW, [weight]), AdamW)
    with pytest.raises(InputError, match=r"model\.optimizer returned .*optimizer of torch"):
        optimizer_of(list, [weight])
    with pytest.raises(InputError, match=r"No weight of model\.policy requires a gradient.*policy\.adapter"):
        optimizer_of(AdamW, [weight.requires_grad_(False)])


LOGPROBS, MASK, GROUPS = torch.zeros(4, 3), torch.ones(4, 3, dtype=torch.bool), torch.tensor([0, 0, 1, 1])
FULL = torch.ones(4, 3)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (torch.ones(4), r"returned a Tensor\. Return TraceReward"),
        (TraceReward(torch.ones(()), FULL), r"\(value\) .*shape \[\]\. .*shape \[4\]"),
        (TraceReward(torch.ones(4, 1), FULL), r"\(value\) .*shape \[4, 1\]\. .*shape \[4\]"),
        (TraceReward([1.0] * 4, FULL), r"\(value\) returned a list\. .*shape \[4\]"),
        (TraceReward(torch.ones(4), torch.ones(4)), r"\(token_weights\) .*shape \[4\]\. .*shape \[4, 3\]"),
    ],
)
def test_an_aggregator_returns_a_reward_for_each_rollout(returned, said: str) -> None:
    with pytest.raises(InputError, match=f"function {said}"):
        reward_by(lambda *_: returned, LOGPROBS, MASK, None, GROUPS)


def test_rewards_that_are_nan_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    values = torch.tensor([-torch.inf, 0.5, torch.nan, torch.nan])
    reward_by(lambda *_: TraceReward(values, FULL), LOGPROBS, MASK, None, GROUPS)
    assert "NaN for 2 of 4 rollouts, first for question 1 of the batch" in caplog.text
    caplog.clear()
    reward_by(lambda *_: TraceReward(values.nan_to_num(), FULL), LOGPROBS, MASK, None, GROUPS)
    assert not caplog.text


@pytest.mark.parametrize("returned", [[0.0] * 4, torch.zeros(4, 1), torch.zeros(()), None])
def test_an_estimator_returns_an_advantage_for_each_rollout(returned) -> None:
    with pytest.raises(InputError, match=r"function returned .*shape \[4\]: one advantage"):
        advantages_by(lambda *_: returned, torch.zeros(4), GROUPS, None)
