"""What Lightning's sharding strategies need to know of a policy, and what is refused of them."""

from nrt_lightning.strategies.layouts import layout_of
from nrt_lightning.strategies.refusals import check_strategy

__all__ = ["check_strategy", "layout_of"]
