"""Checks of settings that the Trainer or the optimizer would refuse late, or by an error that names no setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import BasePredictionWriter

from nrt_lightning.callbacks.run_folder import unwritable
from nrt_lightning.cli.run_folder import class_of, parts_of
from nrt_lightning.errors import InputError
from nrt_lightning.functional.validation import check_at_least

LEAST = {"accumulate_grad_batches": 1, "check_val_every_n_epoch": 1, "log_every_n_steps": 0}


def check_accelerator(name: Any) -> None:
    """Check that the machine has the accelerator.

    Raises:
        InputError: names the setting.
    """
    known = {"gpu": torch.cuda.is_available() or torch.backends.mps.is_available(), "cuda": torch.cuda.is_available()}
    if not known.get(name, True):
        raise InputError(f"trainer.accelerator={name}: torch finds no GPU here. Use trainer.accelerator=cpu or auto.")


def check_numbers(trainer: Any) -> None:
    """Check the numbers of a trainer's settings that Lightning divides by or takes as they are.

    Raises:
        InputError: names the setting and the value.
    """
    for name, least in LEAST.items():
        if trainer.get(name) is not None:
            check_at_least(f"trainer.{name}", trainer[name], least)
    interval, devices = trainer.get("val_check_interval"), str(trainer.get("devices"))
    if isinstance(interval, int | float):
        check_at_least("trainer.val_check_interval", interval, 0, above=True)
    if devices.removeprefix("-").isdecimal() and (int(devices) < -1 or int(devices) == 0):
        raise InputError(f"trainer.devices={devices} is out of range. Use a number of at least 1, -1 for all, or auto.")


def check_optimizer(model: Any) -> None:
    """Check the settings of a module's optimizer, by an optimizer of one small weight.

    Raises:
        InputError: names the setting without which there is an optimizer.
    """
    optimizer = ((model or {}).get("init_args") or {}).get("optimizer")
    if not optimizer or "class_path" not in optimizer:
        return
    kind, given = class_of(optimizer.class_path), dict(optimizer.get("init_args") or {})
    if (error := refused(kind, given)) is None:
        return
    for name, value in given.items():
        if refused(kind, {key: other for key, other in given.items() if key != name}) is None:
            raise InputError(
                f"model.optimizer.{name}={value!r} cannot be used ({error}). Give another value, or leave it out for "
                f"that of {kind.__name__}."
            )


def refused(kind: Any, settings: dict[str, Any]) -> str | None:
    """What an optimizer says of its settings; None if it takes them."""
    try:
        kind([torch.nn.Parameter(torch.zeros(2, 2))], **settings)
    except (ValueError, TypeError) as error:
        return " ".join(str(error).split())
    except Exception:  # what is not about the settings comes when the optimizer is made
        return None
    return None


def check_predictions(config: Any) -> None:
    """Check that somebody keeps the predictions of `predict`.

    Raises:
        InputError: names the option.
    """
    writers = (class_of(part.class_path) for part in parts_of(config.trainer.get("callbacks")))
    kept = config.predictions.path is not None or config.trainer.fast_dev_run
    if not kept and not any(issubclass(kind, BasePredictionWriter) for kind in writers):
        raise InputError("predict writes nothing: give --predictions.path=FILE.")


def check_writable(directory: str, option: str = "trainer.default_root_dir") -> None:
    """Check that a directory, or the nearest parent that exists, can be written.

    Raises:
        InputError: names the option and the directory.
    """
    if (blocked := unwritable(Path(directory).expanduser().absolute())) is not None:
        raise InputError(f"{option}={directory!r} cannot be written ({blocked}). Give another directory.")
