"""Names the lengths of the step that ran out of memory, and the settings that bound them."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from nrt_lightning.errors import InputError
from nrt_lightning.structures import Prompts


class NameOutOfMemory(Callback):
    """Gives a `torch.OutOfMemoryError` a cause that names the step, its lengths, and what bounds them.

    `NRTModule`, `SFTModule` and `OnPolicyRollout` add this callback.
    """

    def __init__(self) -> None:
        self.batch: Any = None  # of the current step

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.batch = batch

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.batch = None

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, torch.OutOfMemoryError):
            exception.__cause__ = InputError(
                f"step {trainer.global_step} ran out of memory{lengths(self.batch)}: {advice(exception, pl_module)}"
            )
        self.batch = None


def advice(error: BaseException, pl_module: Any) -> str:
    """The text of an error, and the settings to change."""
    if getattr(pl_module, "max_tokens_per_micro_batch", None) != "auto":
        first = "Lower model.max_tokens_per_micro_batch"
    elif several(pl_module):
        first = (
            "model.max_tokens_per_micro_batch is auto, which lowers the budget in a single process alone. Set it to a "
            "number, or lower model.sampling.group_size"
        )
    else:
        first = "A group is not divided: lower model.sampling.group_size"
    return (
        f"{' '.join(str(error).split())[:200]} {first}, data.batch_size, model.sampling.max_trace_tokens or the "
        "lengths of data, or set policy.activation_checkpointing=true."
    )


def several(pl_module: Any) -> bool:
    """True if processes train together."""
    return pl_module.trainer.world_size > 1


def lengths(batch: Any) -> str:
    """The lengths of a batch, as a part of a message; empty for other batches."""
    if not isinstance(batch, Prompts):
        return ""
    if batch.rollouts is None:
        prompt, answer = batch.prompt_ids.shape[1], batch.answer_ids.shape[1]
        return f" with {len(batch)} rows of up to {prompt} prompt tokens and {answer} answer tokens"
    rollouts = batch.trained
    prompt, completion = rollouts.prompt_ids.shape[1], rollouts.completion_ids.shape[1]
    return f" with {len(rollouts)} traces of up to {prompt} prompt tokens and {completion} tokens of trace and answer"
