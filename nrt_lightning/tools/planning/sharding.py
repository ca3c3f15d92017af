"""What a device holds of weights that are divided among devices: its share, and what is whole for a while."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from nrt_lightning.tools.planning.sketch import count

if TYPE_CHECKING:
    from nrt_lightning.tools.planning.sketch import Skeleton

AHEAD = 2  # blocks that are whole at a time: the one that is computed and the one that is fetched meanwhile


def at_work(skeleton: Skeleton, precision: str, parameters: Sequence[Tensor]) -> int:
    """Bytes of weights as they are computed with: gathered in 16 bits under mixed precision."""
    return 2 * count(parameters) if precision.endswith("-mixed") else skeleton.bytes(parameters)


def whole_weights(skeleton: Skeleton, precision: str) -> int:
    """Bytes of all weights, gathered while traces are sampled."""
    return at_work(skeleton, precision, skeleton.base) + skeleton.bytes(skeleton.adapter)


def passing_weights(skeleton: Skeleton, precision: str) -> int:
    """Bytes of the weights that are whole at a time in a forward or backward pass.

    What is in no block is gathered for all of it, and of the blocks two at a time.
    """
    largest = max(skeleton.blocks, key=count, default=[])
    return at_work(skeleton, precision, skeleton.root) + AHEAD * at_work(skeleton, precision, largest)


def passing_gradients(skeleton: Skeleton, precision: str) -> int:
    """Bytes of the gradients that are whole at a time, before they are summed and divided."""
    trained = {id(p) for p in skeleton.trained}
    blocks = [[p for p in block if id(p) in trained] for block in skeleton.blocks]
    root = [p for p in skeleton.root if id(p) in trained]
    return at_work(skeleton, precision, root) + AHEAD * at_work(skeleton, precision, max(blocks, key=count, default=[]))
