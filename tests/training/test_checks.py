"""What nothing uses is said; what cannot work together is refused, see `tests/modules` and `tests/cli`."""

from __future__ import annotations

import pytest

from nrt_lightning import (
    EMAReference,
    FrozenReference,
    GeometricMean,
    InitialBaseline,
    KLPenalty,
    LogProb,
    NRTLoss,
    NRTModule,
    Policy,
    PosteriorTokenWeights,
    ReferenceBaseline,
)
from nrt_lightning.training.checks import warn_of_idle_parts


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
