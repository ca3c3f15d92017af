"""The command line can select every part of the method by class name."""

from __future__ import annotations

from dataclasses import dataclass, field

from jsonargparse import ArgumentParser

from nrt_lightning.advantages import AdvantageEstimator, GroupNormalized, LeaveOneOut
from nrt_lightning.functional import SequenceSumConstant, TokenMean
from nrt_lightning.losses import CISPO, ClippedRatio, NRTLoss
from nrt_lightning.rewards import DerivedTokenWeights, GeometricMean, RewardAggregator, TokenWeighting, WeightedSum


@dataclass
class Method:
    """A stand-in for the module.

    Args:
        aggregator: the reward.
        advantages: the estimator.
        token_weighting: of the answer.
        loss: the loss.
    """

    aggregator: RewardAggregator = field(default_factory=WeightedSum)
    advantages: AdvantageEstimator = field(default_factory=GroupNormalized)
    token_weighting: TokenWeighting = field(default_factory=DerivedTokenWeights)
    loss: NRTLoss = field(default_factory=NRTLoss)


def parse(*arguments: str) -> Method:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Method, "method")
    return parser.instantiate(parser.parse_args(list(arguments))).method


def test_defaults() -> None:
    assert parse() == Method(WeightedSum(), GroupNormalized(), DerivedTokenWeights(), NRTLoss())


def test_other_classes_and_settings_by_name() -> None:
    method = parse(
        "--method.aggregator=GeometricMean",
        "--method.advantages=LeaveOneOut",
        "--method.advantages.baseline=clip",
        "--method.token_weighting.center=false",
        "--method.loss.surrogate=ClippedRatio",
        "--method.loss.surrogate.clip_high=0.27",
        "--method.loss.reduction=TokenMean",
        "--method.loss.forced_marker=authors",
    )
    assert method == Method(
        GeometricMean(),
        LeaveOneOut(baseline="clip"),
        DerivedTokenWeights(center=False),
        NRTLoss(ClippedRatio(clip_high=0.27), TokenMean(), forced_marker="authors"),
    )


def test_a_setting_of_the_default_class() -> None:
    method = parse("--method.loss.surrogate.drop_above=.inf", "--method.loss.reduction.divisor=64")
    assert method.loss == NRTLoss(CISPO(drop_above=float("inf")), SequenceSumConstant(64))
