"""Settings that a resumed run should share with its checkpoint: what changed is said, what cannot go on is refused."""

from __future__ import annotations

import logging
from typing import Any

import torch

from nrt_lightning.errors import InputError
from nrt_lightning.randomness import run_seed

log = logging.getLogger(__name__)

PLAIN = (bool, int, float, str, type(None))
IGNORED = ("params", "maximize", "foreach", "capturable", "differentiable", "fused", "decoupled_weight_decay")


def settings_of(trainer: Any) -> dict[str, Any]:
    """The settings, as they are configured. The optimizer's are those before a checkpoint is restored."""
    found: dict[str, Any] = {
        "seed_everything": run_seed(),
        "trainer.accumulate_grad_batches": trainer.accumulate_grad_batches,
        "trainer.precision": str(trainer.precision),
        "trainer.gradient_clip_val": trainer.gradient_clip_val,
    }
    policy = getattr(trainer.lightning_module, "policy", None)
    if isinstance(dtype := getattr(policy, "dtype", None), torch.dtype):
        found["model.policy.dtype"] = str(dtype).removeprefix("torch.")
    for number, optimizer in enumerate(trainer.optimizers):
        name = "optimizer" if number == 0 else f"optimizer {number}"
        found[name] = type(optimizer).__name__
        for index, group in enumerate(optimizer.param_groups):
            values = dict(group) | {"lr": group.get("initial_lr", group["lr"])}
            for key, value in values.items():
                if key in IGNORED or key == "initial_lr":
                    continue
                known = list(value) if isinstance(value, tuple | list) else value
                if all(isinstance(part, PLAIN) for part in (known if isinstance(known, list) else [known])):
                    found[f"{name}.{key}" if index == 0 else f"{name}.{key} of group {index}"] = known
    return found


def report_changed(before: dict[str, Any], now: dict[str, Any], ckpt_path: Any) -> None:
    """Warn of settings that differ from a checkpoint's.

    Raises:
        InputError: the optimizer is of another class, whose state cannot be continued.
    """
    changed = {name: value for name, value in before.items() if name in now and now[name] != value}
    for name, value in changed.items():
        if name.startswith("optimizer") and "." not in name:
            raise InputError(
                f"{ckpt_path} was written with the optimizer {value}, and now it is {now[name]}, which cannot continue "
                "its state. Restore the optimizer, or load only the weights into a new run."
            )
        if name.startswith("optimizer"):
            log.warning(
                "%s=%s is ignored: the run goes on with %s from the checkpoint. To change it, load only the weights "
                "into a new run.", name, now[name], value,
            )  # fmt: skip
        else:
            log.warning("the checkpoint was trained with %s=%s; this run continues with %s", name, value, now[name])
