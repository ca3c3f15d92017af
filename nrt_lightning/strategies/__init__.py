"""What Lightning's sharding strategies need to know of a policy, and what is refused of them."""

from nrt_lightning.strategies.checkpoints import check_before_loading, read_sharded
from nrt_lightning.strategies.layouts import layout_of, sharded
from nrt_lightning.strategies.processes import Processes
from nrt_lightning.strategies.refusals import check_quantization, check_strategy

__all__ = [
    "Processes",
    "check_before_loading",
    "check_quantization",
    "check_strategy",
    "layout_of",
    "read_sharded",
    "sharded",
]
