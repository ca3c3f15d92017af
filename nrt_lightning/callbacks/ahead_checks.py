"""Checks of what `AheadRollout` can sample ahead and learn from."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from nrt_lightning.errors import InputError
from nrt_lightning.rollouts import RolloutEngine
from nrt_lightning.training.method import Method


def check_ahead(trainer: Trainer, method: Method) -> None:
    """Refuse data, engines and losses that `AheadRollout` cannot work with.

    Raises:
        InputError: naming the setting.
    """
    engine, loss = method.engine, method.loss
    if not hasattr(getattr(trainer, "datamodule", None), "next_window"):
        raise InputError(
            "AheadRollout needs the prompts of the next window early, which the data cannot give. Use QADataModule, "
            "give your datamodule a method `next_window`, or use OnPolicyRollout."
        )
    if engine.shares_device:
        raise InputError(
            f"AheadRollout cannot sample with {type(engine).__name__} while the same process trains on the same "
            "device. Use VLLMServerEngine, or OnPolicyRollout."
        )
    if engine.own_weights:
        if loss.sampler_correction is None:
            raise InputError(
                f"AheadRollout with {type(engine).__name__} learns from traces of older weights, and "
                "loss.sampler_correction is null. Set it to TruncatedImportance."
            )
        return
    if not loss.surrogate.uses_ratio:
        raise InputError(
            "AheadRollout learns from traces of older weights, and loss.surrogate "
            f"{type(loss.surrogate).__name__} ignores the ratio. Set it to CISPO or ClippedRatio, or use "
            "OnPolicyRollout."
        )
    check_weights(trainer, engine)


def check_weights(trainer: Trainer, engine: RolloutEngine) -> None:
    """Refuse weights that an engine cannot read in the background."""
    fix = "Use an engine with weights of its own, in other processes, or OnPolicyRollout."
    if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
        raise InputError(
            f"AheadRollout with {type(engine).__name__} needs the whole weights on every process, and "
            f"trainer.strategy is {type(trainer.strategy).__name__}. {fix}"
        )
    device = trainer.strategy.root_device
    if device.type != "cpu":
        raise InputError(
            f"AheadRollout with {type(engine).__name__} would sample on {device}, where the policy is trained at "
            f"the same time: nothing is gained, and CUDA graphs are not captured beside other work. {fix}"
        )
