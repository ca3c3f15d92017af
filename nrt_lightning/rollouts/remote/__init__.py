"""What engines with their own copy of the weights need: a base class, weights as files, HTTP, and process 0's work."""

from nrt_lightning.export.directories import atomic_directory
from nrt_lightning.rollouts.remote.base import RemoteEngine
from nrt_lightning.rollouts.remote.connection import Connection, Failed, Refused, Unreachable
from nrt_lightning.rollouts.remote.files import write_adapter, write_model, write_weights
from nrt_lightning.rollouts.remote.jobs import Job, Line, run_concurrently
from nrt_lightning.rollouts.remote.processes import on_rank_zero, rank, world_size

__all__ = [
    "Connection", "Failed", "Job", "Line", "Refused", "RemoteEngine", "Unreachable", "atomic_directory", "on_rank_zero",
    "rank", "run_concurrently", "world_size", "write_adapter", "write_model", "write_weights"
]  # fmt: skip
