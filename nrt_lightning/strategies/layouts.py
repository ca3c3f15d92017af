"""From the trainer's strategy to the layout of the policy's weights."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy

from nrt_lightning.models.sharding.base import NoSharding, Sharding

STORED = {"bf16-true": torch.bfloat16, "16-true": torch.float16}  # what a precision stores weights in


def sharded(trainer: Trainer) -> bool:
    """Whether the trainer's strategy shards weights."""
    return isinstance(trainer.strategy, ModelParallelStrategy | FSDPStrategy)


def layout_of(trainer: Trainer) -> Sharding:
    """How a strategy wants weights to lie. For `configure_model`, when the processes know one another.

    `ModelParallelStrategy` leaves it to the module to shard (FSDP2). `FSDPStrategy` would wrap the module as a whole;
    here the model is wrapped and not the module around it, so that it can be run outside of a training step too.
    """
    strategy: Any = trainer.strategy
    dtype = STORED.get(str(trainer.precision))
    if isinstance(strategy, ModelParallelStrategy):
        from nrt_lightning.models.sharding.fsdp2 import FSDP2Sharding

        computed = torch.bfloat16 if trainer.precision == "bf16-mixed" else None
        return FSDP2Sharding(strategy.device_mesh["data_parallel"], dtype, computed)
    if isinstance(strategy, FSDPStrategy):
        from nrt_lightning.models.sharding.fsdp1 import FSDP1Sharding

        settings = strategy.kwargs | {
            "cpu_offload": strategy.cpu_offload,
            "mixed_precision": strategy.mixed_precision_config,
            "sharding_strategy": strategy.sharding_strategy,
        }
        strategy.kwargs.pop("auto_wrap_policy", None)  # it has been used
        return FSDP1Sharding(strategy.root_device, settings, dtype)
    return NoSharding()
