"""Memory of sharded weights on one device: its shard, and what is gathered temporarily."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from nrt_lightning.tools.planning.sketch import count

if TYPE_CHECKING:
    from nrt_lightning.tools.planning.sketch import Skeleton

AHEAD = 2  # blocks that are gathered at a time: the current one and the prefetched one


def gathered_bytes(skeleton: Skeleton, precision: str, parameters: Sequence[Tensor]) -> int:
    """Bytes of gathered weights, which have 16 bits under mixed precision."""
    return 2 * count(parameters) if precision.endswith("-mixed") else skeleton.bytes(parameters)


def whole_weights(skeleton: Skeleton, precision: str) -> int:
    """Bytes of all weights, which are gathered while traces are sampled."""
    return gathered_bytes(skeleton, precision, skeleton.base) + skeleton.bytes(skeleton.adapter)


def passing_weights(skeleton: Skeleton, precision: str) -> int:
    """Bytes of the weights that are gathered at a time in a forward or backward pass.

    Weights outside the blocks are gathered for the whole pass, the blocks two at a time.
    """
    largest = max(skeleton.blocks, key=count, default=[])
    return gathered_bytes(skeleton, precision, skeleton.root) + AHEAD * gathered_bytes(skeleton, precision, largest)


def passing_gradients(skeleton: Skeleton, precision: str) -> int:
    """Bytes of the gradients that are unsharded at a time, before they are reduced."""
    trained = {id(p) for p in skeleton.trained}
    blocks = [[p for p in block if id(p) in trained] for block in skeleton.blocks]
    root = [p for p in skeleton.root if id(p) in trained]
    largest = max(blocks, key=count, default=[])
    return gathered_bytes(skeleton, precision, root) + AHEAD * gathered_bytes(skeleton, precision, largest)
