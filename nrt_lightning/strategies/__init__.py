"""Adapts Lightning's sharding strategies to policies, and checks their settings."""

from nrt_lightning.strategies.checkpoints import read_sharded
from nrt_lightning.strategies.checks import check_precision, check_run
from nrt_lightning.strategies.layouts import layout_of, sharded
from nrt_lightning.strategies.position import between_windows, micro_batches_done
from nrt_lightning.strategies.processes import Processes, gather_in_order, gather_objects

__all__ = [
    "Processes", "between_windows", "check_precision", "check_run", "gather_in_order", "gather_objects", "layout_of",
    "micro_batches_done", "read_sharded", "sharded"
]  # fmt: skip
