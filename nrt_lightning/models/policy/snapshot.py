"""Snapshots: policies that keep their weights while the original is trained."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from nrt_lightning.models.scoring.base import logits_are_final

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy


def snapshot(policy: Policy) -> Policy:
    """A policy with copies of the trained weights; frozen weights and the tokenizer are shared.

    Two threads can use the policy and its snapshot at the same time.

    Args:
        policy: loaded, with whole weights on this process.

    Example:
        >>> from nrt_lightning import Policy
        >>> policy = Policy("embedded:registers-base").load()
        >>> weight, copied = next(policy.parameters()), next(snapshot(policy).parameters())
        >>> bool((weight == copied).all()), weight.data_ptr() == copied.data_ptr()
        (True, False)
    """
    shared = [p for p in policy.parameters() if not p.requires_grad]
    copied = copy.deepcopy(policy, {id(part): part for part in [*shared, policy.tokenizer]}).eval()
    network = copied.network
    logits_are_final(network, network.get_output_embeddings())  # tried now: it uses a generator that threads share
    return copied


@torch.no_grad()
def copy_from(copied: Policy, policy: Policy) -> None:
    """Copy the policy's current trained weights into its snapshot."""
    for old, new in zip(copied.parameters(), policy.parameters(), strict=True):
        if new.requires_grad:
            old.copy_(new)
