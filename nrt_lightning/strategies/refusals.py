"""Settings of a strategy that cannot train a policy are refused before weights are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer
from lightning.pytorch.plugins.precision import BitsandbytesPrecision, Precision
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from nrt_lightning.errors import InputError

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy


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


def check_quantization(policy: Policy, precision: Precision, stage: str) -> None:
    """Refuse quantization that would not train, or that comes twice.

    Raises:
        InputError: with the setting to use in its place.
    """
    if isinstance(precision, BitsandbytesPrecision):
        raise InputError(
            "trainer.plugins has BitsandbytesPrecision, which quantizes after the policy has been loaded, adapter and "
            "all. Take it out and set policy.quantization to FourBit, with policy.adapter LoRA to train."
        )
    if stage == "fit" and policy.quantized and policy.adapter is None:
        raise InputError(
            "policy.quantization stores the weights in a few bits, which take no gradient steps: only embeddings and "
            "norms would be trained. Give policy.adapter one, for instance LoRA, or set policy.quantization to null."
        )
