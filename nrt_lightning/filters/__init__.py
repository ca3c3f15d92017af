"""Group filters, which select the groups of a batch that carry a loss."""

from nrt_lightning.filters.base import GroupFilter, Groups, apply_filters
from nrt_lightning.filters.difficulty_band import DifficultyBandFilter
from nrt_lightning.filters.ema_deviation import EMADeviationFilter
from nrt_lightning.filters.minimum_spread import MinimumSpreadFilter
from nrt_lightning.filters.zero_variance import ZeroVarianceFilter

__all__ = [
    "DifficultyBandFilter", "EMADeviationFilter", "GroupFilter", "Groups", "MinimumSpreadFilter", "ZeroVarianceFilter",
    "apply_filters"
]  # fmt: skip
