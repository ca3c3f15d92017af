"""Checks of a strategy's settings, before any weights are read."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.precision import BitsandbytesPrecision, Precision
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy

from nrt_lightning.errors import InputError
from nrt_lightning.strategies.layouts import sharded
from nrt_lightning.strategies.refused import check_parts
from nrt_lightning.strategies.sharded_saves import make_safe

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy

log = logging.getLogger(__name__)
WARNED: WeakSet[Trainer] = WeakSet()  # trainers whose warning has been given


def check_run(trainer: Trainer, policy: Policy, stage: str) -> None:
    """Check Lightning's parts and the quantization of a run, and let a sharding strategy check a checkpoint.

    Raises:
        InputError: names the setting to use instead.
    """
    check_parts(trainer)
    check_quantization(policy, trainer.precision_plugin, stage)
    if stage == "fit":
        check_precision(trainer, policy)
    check_strategy(trainer)
    if sharded(trainer):
        make_safe(trainer.strategy)


def check_strategy(trainer: Trainer) -> None:
    """Check that a strategy can train a policy.

    Raises:
        InputError: names the setting to use instead.
    """
    strategy: Any = trainer.strategy
    if isinstance(strategy, FSDPStrategy) and strategy._activation_checkpointing_kwargs:
        raise InputError(
            "trainer.strategy has activation_checkpointing_policy, which wraps layers that the policy has wrapped. "
            "Remove it and set policy.activation_checkpointing to true."
        )
    if isinstance(strategy, ModelParallelStrategy | FSDPStrategy) and trainer.precision == "16-mixed":
        raise InputError(
            "trainer.precision is 16-mixed, whose gradient scaling does not support sharded weights. Set it to "
            "bf16-mixed."
        )


def check_precision(trainer: Trainer, policy: Policy) -> None:
    """Check that the trained weights keep small updates.

    Args:
        trainer: of the run.
        policy: that is trained.

    Raises:
        InputError: gradients in float16 without a scaler, which become NaN within a step.
    """
    precision = trainer.precision
    adapter = None if policy.adapter is None else getattr(policy.adapter, "dtype", None)
    fix = "Set it to float32 and trainer.precision to bf16-mixed, or to 16-mixed on devices without bfloat16."
    if precision == "16-true":
        raise InputError(
            "trainer.precision is 16-true, and training in float16 without scaled gradients gives NaN. Set it to "
            "bf16-mixed, or to 16-mixed on devices without bfloat16."
        )
    if adapter == "float16":
        raise InputError(f"policy.adapter.dtype is float16, in which training gives NaN. {fix}")
    kept = precision not in ("bf16-true", "64-true")  # others convert the weights
    if kept and policy.dtype == torch.float16 and (policy.adapter is None or precision != "16-mixed"):
        raise InputError(f"policy.dtype is float16, in which training gives NaN. {fix}")
    trained = str(policy.dtype).removeprefix("torch.") if policy.adapter is None else adapter
    if (precision == "bf16-true" or (kept and trained == "bfloat16")) and trainer not in WARNED:
        WARNED.add(trainer)
        setting = "policy.dtype" if policy.adapter is None else "policy.adapter.dtype"
        where = "trainer.precision is bf16-true" if precision == "bf16-true" else f"{setting} is bfloat16"
        say = log.warning if trainer.is_global_zero else log.debug
        say(
            "%s, and weights in bfloat16 are trained: updates below 1/256 of a weight are rounded off, so that at the "
            "default learning rate of 2e-6 less than 1 %% of the weights move in a step. Set %s to float32 and "
            "trainer.precision to bf16-mixed.", where, setting,
        )  # fmt: skip


def check_quantization(policy: Policy, precision: Precision, stage: str) -> None:
    """Check that the quantized policy can be trained and is quantized only once.

    Raises:
        InputError: names the setting to use instead.
    """
    if isinstance(precision, BitsandbytesPrecision):
        raise InputError(
            "trainer.plugins has BitsandbytesPrecision, which would quantize the loaded policy with its adapter. "
            "Remove it and set policy.quantization to FourBit, with policy.adapter LoRA to train."
        )
    if stage == "fit" and policy.quantized and policy.adapter is None:
        raise InputError(
            "policy.quantization makes the linear layers untrainable: only embeddings and norms would be trained. Set "
            "policy.adapter, for instance to LoRA, or set policy.quantization to null."
        )
