"""Adapts Lightning's sharding strategies to policies, and checks their settings."""

from nrt_lightning.strategies.checkpoints import check_before_loading, read_sharded
from nrt_lightning.strategies.checks import check_quantization, check_strategy
from nrt_lightning.strategies.layouts import layout_of, sharded
from nrt_lightning.strategies.processes import Processes, gather_objects

__all__ = [
    "Processes", "check_before_loading", "check_quantization", "check_strategy", "gather_objects", "layout_of",
    "read_sharded", "sharded"
]  # fmt: skip
