"""A second policy that stays as it is while the first is trained."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from nrt_lightning.models.scoring.base import logits_are_final

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy


def twin(policy: Policy) -> Policy:
    """A policy with copies of the weights that are trained; it shares the frozen ones.

    Both can be used at the same time, in threads of their own.

    Args:
        policy: loaded, with its weights whole on this process.

    Example:
        >>> from nrt_lightning import Policy
        >>> policy = Policy("embedded:registers-base").load()
        >>> weight, copied = next(policy.parameters()), next(twin(policy).parameters())
        >>> bool((weight == copied).all()), weight.data_ptr() == copied.data_ptr()
        (True, False)
    """
    shared = [p for p in policy.parameters() if not p.requires_grad]
    double = copy.deepcopy(policy, {id(part): part for part in [*shared, policy.tokenizer]}).eval()
    network = double.network
    logits_are_final(network, network.get_output_embeddings())  # tried once, by way of a generator that threads share
    return double


@torch.no_grad()
def follow(double: Policy, policy: Policy) -> None:
    """Give the twin the weights that the policy has now."""
    for copied, weight in zip(double.parameters(), policy.parameters(), strict=True):
        if weight.requires_grad:
            copied.copy_(weight)
