"""Settings of a strategy that cannot train a policy are refused before weights are read."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from nrt_lightning.errors import InputError


def check_strategy(trainer: Trainer) -> None:
    """Refuse a strategy that cannot train a policy.

    Raises:
        InputError: with the setting to use in its place.
    """
    strategy: Any = trainer.strategy
    if isinstance(strategy, ModelParallelStrategy):
        check_sizes(strategy, trainer.world_size)
    if isinstance(strategy, FSDPStrategy) and strategy._activation_checkpointing_kwargs:
        raise InputError(
            "trainer.strategy has activation_checkpointing_policy, which wraps layers that the policy wraps already. "
            "Take it out and set policy.activation_checkpointing to true."
        )
    if isinstance(strategy, ModelParallelStrategy | FSDPStrategy) and trainer.precision == "16-mixed":
        raise InputError(
            "trainer.precision is 16-mixed, whose scaled gradients are not summed over sharded weights here. Set it to "
            "bf16-mixed."
        )
    if isinstance(strategy, DeepSpeedStrategy):
        raise InputError(
            "trainer.strategy is DeepSpeedStrategy, under which traces cannot be sampled here. Use "
            "ModelParallelStrategy with tensor_parallel_size 1, FSDPStrategy, or ddp."
        )


def check_sizes(strategy: Any, processes: int) -> None:
    """Refuse tensor parallelism, which is what sizes left on "auto" mean."""
    mesh = strategy.device_mesh
    if mesh["tensor_parallel"].size() > 1:
        raise InputError(
            f"trainer.strategy ModelParallelStrategy has tensor_parallel_size {mesh['tensor_parallel'].size()} (`auto` "
            "means the devices of a node), but the policy is sharded over data-parallel processes. Set "
            f"data_parallel_size to {processes} and tensor_parallel_size to 1."
        )
