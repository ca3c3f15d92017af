"""Gathers the weights of a sharded policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM

from nrt_lightning.models.sharding.base import plain_name

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from nrt_lightning.models.policy.policy import Policy


def whole_policy(policy: Policy) -> Policy | None:
    """Return a policy with whole weights.

    It is the policy itself if its weights are not sharded. Otherwise it is a copy on the CPU of process 0, and None on
    the other processes; all processes must call this. The base of an adapter is read from its files again.
    """
    if not policy.sharding.active:
        return policy
    trained = policy.adapter is not None and policy.readable  # other weights are as in the files
    weights = [(plain_name(name), weight) for name, weight in policy.named_parameters()]
    state = policy.sharding.read(policy, {name for name, weight in weights if weight.requires_grad or not trained})
    if dist.get_rank() != 0:
        return None
    live = {"model": empty_model(policy), "tokenizer": policy.tokenizer} if policy.live else {}
    plain = policy.sibling(**live).load()
    plain.sharding.write(plain, state)
    return plain.eval()


def empty_model(policy: Policy) -> PreTrainedModel:
    """A model with the policy's architecture, into which the weights of a live model are copied."""
    with torch.random.fork_rng():
        return AutoModelForCausalLM.from_config(policy.config, dtype=policy.dtype)
