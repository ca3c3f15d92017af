"""Detection of changed weights, for engines that hold a copy of them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.tensor import DTensor

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy

MULTIPLIER = 0x9E3779B97F4A7C15  # odd; distinguishes blocks of words


@torch.no_grad()
def weights_state(policy: Policy) -> tuple[int, ...]:
    """A checksum of each weight, or of the shard of it that this process holds.

    All values are read: torch's version counters miss fused and 8-bit optimizers, sharded weights and `weight.data`.

    Args:
        policy: loaded.

    Example:
        >>> from nrt_lightning import Policy
        >>> policy = Policy("embedded:registers-base").load()
        >>> before = weights_state(policy)
        >>> next(policy.parameters()).data[3, 5] += 0.001
        >>> [old == new for old, new in zip(before, weights_state(policy))][:3]
        [False, True, True]
    """
    return tuple(map(checksum, policy.parameters()))


def checksum(weight: Tensor) -> int:
    """The sum of a weight's 4-byte words times random odd factors, modulo 2^64.

    A change of one word always changes it; any other change goes undetected with a probability of at most 2^-32.
    """
    local = weight.to_local() if isinstance(weight, DTensor) else weight.data
    content = local.contiguous().flatten().view(torch.uint8)
    words = F.pad(content, (0, -len(content) % 4)).view(torch.int32)
    odd, total = factors(words.device), 0
    for block in words.split(len(odd)):
        total = (total * MULTIPLIER + int((block * odd[: len(block)]).sum())) % 2**64
    return total


@cache
def factors(device: torch.device) -> Tensor:
    """Random odd factors for a block of words, [words]."""
    words = 2**16 if device.type == "cpu" else 2**22  # fits a CPU's cache; bounds a GPU's memory and launches
    numbers = torch.randint(-(2**63), 2**63 - 1, (words,), generator=torch.Generator().manual_seed(0))
    return (numbers | 1).to(device)
