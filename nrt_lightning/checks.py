"""Parts of a method that cannot work together are refused before any weights are read."""

from __future__ import annotations

from nrt_lightning.errors import InputError
from nrt_lightning.filters import GroupFilter
from nrt_lightning.functional import check_at_least
from nrt_lightning.losses import NRTLoss
from nrt_lightning.models import BaselineScorer, Reference
from nrt_lightning.rewards import KLPenalty
from nrt_lightning.structures import Sampling


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
    """Refuse a baseline, a penalty or a correction that lacks what it needs."""
    baseline_scorer.check(reference)
    if kl_penalty and not reference.available:
        raise InputError(
            f"kl_penalty is {kl_penalty}, but there is no reference. Set reference, for instance to FrozenReference."
        )
    if loss.sampler_correction and sampling.temperature == 0:
        raise InputError(
            "loss.sampler_correction weighs traces by their probabilities, and sampling.temperature is 0: greedy "
            "traces have none. Set a temperature above 0, or sampler_correction to null."
        )
