"""Checks of what a checkpoint holds, beyond the checksums of its file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from nrt_lightning.errors import InputError

REQUIRED = {"state_dict": Mapping, "pytorch-lightning_version": str}
KINDS = {
    "loops": Mapping,
    "callbacks": Mapping,
    "optimizer_states": list,
    "lr_schedulers": list,
    "global_step": int,
    "epoch": int,
    "nrt_lightning": Mapping,
    "nrt_lightning_position": Mapping,
}
FIX = "Give another checkpoint."
SHAPED = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer")  # states of torch.optim, as their weights
PARTS = {"optimizer_states": "optimizers", "lr_schedulers": "lr_scheduler_configs"}  # of a strategy


def check_contents(checkpoint: Any, path: Any) -> None:
    """Check that a checkpoint has the parts of one, and that its numbers are finite.

    Raises:
        InputError: names the checkpoint and the part.
    """
    if not isinstance(checkpoint, dict):
        raise InputError(f"{path} is no checkpoint of a Trainer: it holds a {type(checkpoint).__name__}. {FIX}")
    for name, kind in (REQUIRED | KINDS).items():
        if name in REQUIRED and name not in checkpoint:
            raise InputError(f"{path} is no checkpoint of a Trainer: it has no {name}. {FIX}")
        if name in checkpoint and not isinstance(checkpoint[name], kind):
            found = type(checkpoint[name]).__name__
            raise InputError(f"The checkpoint {path} is damaged: {name} is a {found}. {FIX}")
    if "optimizer_states" in checkpoint and "callbacks" not in checkpoint:  # without them, no hook would check the rest
        raise InputError(f"The checkpoint {path} is damaged: it has no callbacks. {FIX}")
    for name, weight in checkpoint["state_dict"].items():
        if not torch.is_tensor(weight) and "." in name and name.endswith((".weight", ".bias")):
            raise InputError(f"The checkpoint {path} is damaged: the weight {name} is a {type(weight).__name__}. {FIX}")
    check_weights(checkpoint, path)
    for number, state in enumerate(checkpoint.get("optimizer_states", [])):
        check_optimizer_state(state, f"The checkpoint {path} is damaged: optimizer {number}")


def check_weights(checkpoint: dict[str, Any], path: Any) -> None:
    """Check that the weights of a checkpoint are finite.

    Raises:
        InputError: names the checkpoint and the weight.
    """
    for name, weight in checkpoint.get("state_dict", {}).items():
        if not finite(weight):
            raise InputError(
                f"The weight {name} is not finite, so the checkpoint {path} is neither written nor used. Resume an "
                "earlier one, with a lower learning rate or other rows."
            )


def check_optimizer_state(state: Any, where: str) -> None:
    """Check the state of an optimizer: its parts, and that its numbers are finite.

    Args:
        state: as saved.
        where: begins the message.

    Raises:
        InputError: names the value.
    """
    if not isinstance(state, Mapping) or not {"state", "param_groups"} <= state.keys():
        raise InputError(f"{where} has no state and param_groups. {FIX}")
    for group in state["param_groups"]:
        rate = group.get("lr") if isinstance(group, Mapping) else None
        if torch.is_tensor(rate):
            rate = rate.item() if rate.numel() == 1 else None
        if not isinstance(rate, int | float) or not math.isfinite(rate):
            raise InputError(f"{where} has the learning rate {rate!r}. {FIX}")
    for parameter, values in state["state"].items():
        for name, value in values.items() if isinstance(values, Mapping) else ():
            if not finite(value):
                raise InputError(f"{where} has a {name} of parameter {parameter} that is not finite. {FIX}")


def finite(value: Any) -> bool:
    """False for a tensor with NaN or infinity; a tensor without values has none."""
    if not torch.is_tensor(value) or not value.is_floating_point() or not value.numel() or value.is_meta:
        return True
    return all(bool(bound.isfinite()) for bound in torch.aminmax(value))


def name_faults(strategy: Any) -> None:
    """Let a strategy name what does not fit when it restores weights and optimizers."""
    if "load_optimizer_state_dict" not in vars(strategy):
        strategy.load_model_state_dict = partial(load_weights, strategy, strategy.load_model_state_dict)
        strategy.load_optimizer_state_dict = partial(load_optimizers, strategy, strategy.load_optimizer_state_dict)


def load_weights(strategy: Any, load: Callable[..., None], checkpoint: Mapping[str, Any], strict: bool = True) -> None:
    """Restore the weights.

    Raises:
        InputError: names weights that are missing, unknown, or of another shape or kind.
    """
    own, where = dict(strategy.lightning_module.named_parameters()), misfit(strategy)
    for name, weight in checkpoint.get("state_dict", {}).items():
        if name in own and torch.is_tensor(weight) and own[name].is_floating_point() != weight.is_floating_point():
            raise InputError(f"{where} the weight {name} is of {weight.dtype}. {FIX}")
    try:
        load(checkpoint, strict=strict)
    except RuntimeError as error:
        if "state_dict" not in str(error):
            raise
        problem = " ".join(str(error).partition(":")[2].split()).rstrip(".")
        raise InputError(f"{where} {problem[:300]}. {FIX}") from error


def load_optimizers(strategy: Any, load: Callable[..., None], checkpoint: Mapping[str, Any]) -> None:
    """Restore the optimizers.

    Raises:
        InputError: another number of optimizers, schedules or parameters was saved, or other shapes.
    """
    where = misfit(strategy)
    for part, own in PARTS.items():
        saved, here = len(checkpoint.get(part, [])), len(getattr(strategy, own))
        if part in checkpoint and saved != here:
            raise InputError(f"{where} it has {saved} {part}, and this run has {here}. {FIX}")
        if not all(isinstance(state, Mapping) for state in checkpoint.get(part, [])):
            raise InputError(f"{where} its {part} are {checkpoint[part]!r}. {FIX}")
    try:
        load(checkpoint)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{where} its optimizer cannot be restored ({error}). {FIX}") from error
    for optimizer in strategy.optimizers:
        for parameter, values in optimizer.state.items():
            for name, value in values.items():
                if torch.is_tensor(value) and name in SHAPED and value.shape != parameter.shape:
                    shapes = f"{list(value.shape)} for a weight of {list(parameter.shape)}"
                    raise InputError(f"{where} the optimizer has a {name} of {shapes}. {FIX}")


def misfit(strategy: Any) -> str:
    """The beginning of a message about a checkpoint that belongs to another run."""
    return f"The checkpoint {strategy.lightning_module.trainer.ckpt_path} does not fit:"
