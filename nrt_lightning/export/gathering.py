"""A policy of whole weights out of one whose weights are sharded."""

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
    """The policy itself; where its weights are sharded, one of the same weights on the CPU, in process 0 only.

    All processes take part. Of a policy with an adapter, the base is read again.
    """
    if not policy.sharding.active:
        return policy
    trained = policy.adapter is not None and policy.readable  # the rest is as it was read
    weights = [(plain_name(name), weight) for name, weight in policy.named_parameters()]
    state = policy.sharding.read(policy, {name for name, weight in weights if weight.requires_grad or not trained})
    if dist.get_rank() != 0:
        return None
    live = {"model": empty_model(policy), "tokenizer": policy.tokenizer} if policy.live else {}
    plain = policy.sibling(**live).load()
    plain.sharding.write(plain, state)
    return plain.eval()


def empty_model(policy: Policy) -> PreTrainedModel:
    """A model of the policy's shape, for the weights of a live model."""
    with torch.random.fork_rng():
        return AutoModelForCausalLM.from_config(policy.config, dtype=policy.dtype)
