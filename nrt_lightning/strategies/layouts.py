"""Layouts of the policy's weights for Lightning's strategies."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy

from nrt_lightning.models.sharding.base import NoSharding, Sharding

STORED = {"bf16-true": torch.bfloat16, "16-true": torch.float16}  # dtype of stored weights by precision


def sharded(trainer: Trainer) -> bool:
    """True if the trainer's strategy shards weights."""
    return isinstance(trainer.strategy, ModelParallelStrategy | FSDPStrategy)


def layout_of(trainer: Trainer) -> Sharding:
    """The layout for a strategy. Called in `configure_model`, when the process group exists.

    `ModelParallelStrategy` leaves sharding to the module (FSDP2). `FSDPStrategy` would wrap the whole module; here only
    the model is wrapped, so that it can be run outside a training step too.
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
            "mixed_precision": unrounded_buffers(strategy.mixed_precision_config),
            "sharding_strategy": strategy.sharding_strategy,
        }
        strategy.kwargs.pop("auto_wrap_policy", None)  # already applied
        return FSDP1Sharding(strategy.root_device, settings, dtype)
    return NoSharding()


def unrounded_buffers(settings: Any) -> Any:
    """FSDP's settings of mixed precision with buffers as they are: rotary frequencies stay in float32."""
    return None if settings is None else dataclasses.replace(settings, buffer_dtype=None)
