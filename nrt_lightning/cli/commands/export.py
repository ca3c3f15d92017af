"""`nrt-lightning export`: convert a checkpoint to a directory for other libraries."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser

from nrt_lightning.cli.main import input_error
from nrt_lightning.cli.parser import PlainParser
from nrt_lightning.errors import InputError
from nrt_lightning.export import ExportForm, RunRecord, check_target, export_policy
from nrt_lightning.models.policy.fingerprint import check_same_policy
from nrt_lightning.models.policy.policy import Policy
from nrt_lightning.strategies.checkpoints import METADATA, read_sharded


def export(
    checkpoint: str, out: str, form: ExportForm | None = None, base: str | None = None, *, overwrite: bool = False
) -> Path:
    """Write the policy of a checkpoint to a Hugging Face directory.

    Args:
        checkpoint: checkpoint of `nrt-lightning fit`: a file, or a directory if it is sharded.
        out: directory to write; must be empty or missing.
        form: weights to write: `WholeModel`, `AdapterFiles` or `Merged`; null for `Merged` if there is an adapter and
            `WholeModel` otherwise.
        base: model that the run started from, if it has moved.
        overwrite: replace the contents of the directory.

    Raises:
        InputError: the checkpoint is missing or has no settings, the base is missing or a different model, the
            directory is not empty, or the policy does not support the form.
    """
    check_target(Path(out).expanduser().absolute(), overwrite=overwrite)
    saved = read(checkpoint)
    policy = build_policy(saved, base)
    if policy.adapter is not None and not policy.readable:
        raise InputError(
            f"checkpoint={checkpoint!r} is an adapter of random weights (policy.weights), which only its run can "
            "reproduce. Resume the run with the callback ExportPolicy."
        )
    if form is not None:
        form.check(policy)
    stored = saved.get("nrt_lightning", {})
    check_same_policy(stored.get("policy", {}), policy)
    policy.load()
    weights = {k.removeprefix("policy."): v for k, v in saved["state_dict"].items() if k.startswith("policy.")}
    policy.load_state_dict(weights)
    directory = export_policy(policy.eval(), out, form, RunRecord(**stored.get("run", {})), overwrite=overwrite)
    print(f"written to {directory}")
    return directory


def read(checkpoint: str) -> dict[str, Any]:
    """The contents of a checkpoint.

    Raises:
        InputError: the checkpoint cannot be read or contains no policy settings.
    """
    path = Path(checkpoint).expanduser()
    if not path.is_file() and not (path / METADATA).is_file():
        raise InputError(f"checkpoint={checkpoint!r}: no such file. Give a .ckpt file or directory that `fit` wrote.")
    try:
        saved = (
            read_sharded(path) if path.is_dir() else torch.load(path, weights_only=True, map_location="cpu", mmap=True)
        )
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        raise InputError(f"checkpoint={checkpoint!r} cannot be read ({error}). Give another.") from error
    if "policy" not in saved.get("hyper_parameters", {}):
        raise InputError(
            f"checkpoint={checkpoint!r} contains no policy settings, because its module was built in Python. Load it "
            "there and call nrt_lightning.export_policy(module.policy, directory)."
        )
    return saved


def build_policy(saved: dict[str, Any], base: str | None) -> Policy:
    """Build the policy of a checkpoint, without reading its weights.

    Raises:
        InputError: the base cannot be read.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Policy, "policy")
    settings = saved["hyper_parameters"]["policy"]
    if base is not None:
        settings = settings | {"init_args": settings["init_args"] | {"model": base}}
    try:
        return parser.instantiate_classes(parser.parse_object({"policy": settings})).policy
    except ValueError as error:
        message = input_error(error) or str(error)
        raise InputError(f"The base of the checkpoint cannot be read: {message} Give it as --base.") from error


def main(args: list[str]) -> None:
    """Run the command.

    Args:
        args: options of the command.
    """
    parser = PlainParser(prog="nrt-lightning export", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", action="config", help="YAML file with these options")
    parser.add_function_arguments(export)
    settings = parser.instantiate_classes(parser.parse_args(args))
    settings.pop("config", None)
    export(**settings.as_dict())
