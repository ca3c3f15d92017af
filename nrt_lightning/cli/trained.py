"""The trained policy of a run's checkpoint, for the commands that read one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from typing_extensions import override

from nrt_lightning.cli.checkpoints import find_checkpoint
from nrt_lightning.cli.lightning_cli import NRTCLI, make_cli
from nrt_lightning.cli.user_errors import input_error
from nrt_lightning.errors import InputError
from nrt_lightning.export import RunRecord
from nrt_lightning.models.policy.fingerprint import check_same_policy
from nrt_lightning.models.policy.policy import Policy
from nrt_lightning.strategies.checkpoint_io import damage
from nrt_lightning.strategies.checkpoints import METADATA, read_remote, read_sharded, remote
from nrt_lightning.strategies.saved_settings import REMOTE_CODE, listed, only_known_classes, trusted

NAMED = ("auto", "best", "last")  # checkpoints of a run
OF_THE_RUN = ("--config", "-c", "--trainer", "--model", "--data")  # options of `fit`, which name the run


@dataclass
class Trained:
    """The policy of a checkpoint, whose weights are not loaded yet.

    Args:
        checkpoint: path of the checkpoint.
        saved: its contents.
        policy: with the checkpoint's settings.
        record: of the run.
    """

    checkpoint: str
    saved: dict[str, Any] = field(repr=False)
    policy: Policy
    record: RunRecord

    def load(self) -> Policy:
        """Read the base, and load the trained weights into it.

        Raises:
            InputError: the base is another model than the run's.
        """
        check_same_policy(self.saved.get("nrt_lightning", {}).get("policy", {}), self.policy)
        self.policy.load()
        found = self.saved["state_dict"].items()
        self.policy.load_state_dict({k.removeprefix("policy."): v for k, v in found if k.startswith("policy.")})
        return self.policy.eval()


def read_trained(
    checkpoint: str, base: str | None = None, allow: str | Sequence[str] = (), *, trust_remote_code: bool = False
) -> Trained:
    """Read a checkpoint of `fit`.

    Args:
        checkpoint: a file, or a directory if it is sharded.
        base: model that the run started from, if it has moved.
        allow: classes that its settings may build, besides those of this package and of `torch.optim`.
        trust_remote_code: run code that comes with the base, if the settings say so.

    Raises:
        InputError: the checkpoint is missing, has no settings or settings of other classes, or the base cannot be read.
    """
    saved, where = read(checkpoint), f"checkpoint={checkpoint!r}"
    settings = trusted(
        saved["hyper_parameters"]["policy"], where, known := listed(allow), remote_code=trust_remote_code
    )
    given = ({} if base is None else {"model": base}) | ({REMOTE_CODE: True} if trust_remote_code else {})
    with only_known_classes(where, known):
        policy = build_policy(settings, given)
    if policy.adapter is not None and not policy.readable:
        raise InputError(
            f"checkpoint={checkpoint!r} is an adapter of random weights (policy.weights), which only its run can "
            "reproduce. Resume the run with the callback ExportPolicy."
        )
    try:
        record = RunRecord(**saved.get("nrt_lightning", {}).get("run", {}))
    except (TypeError, AttributeError) as error:
        raise InputError(f"{where}: its record of the run cannot be read ({error}). Give another.") from None
    return Trained(checkpoint, saved, policy, record)


def read(checkpoint: str) -> dict[str, Any]:
    """The contents of a checkpoint.

    Raises:
        InputError: the checkpoint cannot be read or contains no policy settings.
    """
    path = Path(checkpoint).expanduser()
    elsewhere = remote(checkpoint)
    if not elsewhere and not path.is_file() and not (path / METADATA).is_file():
        raise InputError(
            f"checkpoint={checkpoint!r}: no such file. Give a .ckpt file or directory that `fit` wrote, or best or "
            "last, with --config of the run."
        )
    if path.is_dir() and (problem := damage(path)) is not None:
        raise InputError(f"checkpoint={checkpoint!r} cannot be used: {problem}. Give another.")
    try:
        if elsewhere:
            saved = read_remote(checkpoint)
        elif path.is_dir():
            saved = read_sharded(path)
        else:
            saved = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except Exception as error:  # torch raises many kinds
        problem = " ".join(str(error).split())[:200]
        raise InputError(
            f"checkpoint={checkpoint!r} cannot be read ({type(error).__name__}: {problem}). Give another."
        ) from error
    if not isinstance(saved, dict) or not isinstance(saved.get("state_dict"), dict):
        raise InputError(f"checkpoint={checkpoint!r} is no checkpoint of `fit`: it has no state_dict. Give another.")
    settings = saved.get("hyper_parameters", {})
    if not isinstance(settings, dict) or not isinstance(settings.get("policy"), dict):
        raise InputError(
            f"checkpoint={checkpoint!r} contains no policy settings, because its module was built in Python. Load it "
            "there and call nrt_lightning.export_policy(module.policy, directory)."
        )
    return saved


def build_policy(settings: dict[str, Any], given: dict[str, Any]) -> Policy:
    """Build the policy of a checkpoint, without reading its weights.

    Args:
        settings: of the policy.
        given: settings that are changed.

    Raises:
        InputError: the settings or the base cannot be read.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Policy, "policy")
    try:
        settings = settings | {"init_args": {**settings.get("init_args", {}), **given}}
        return parser.instantiate(parser.parse_object({"policy": settings})).policy
    except (ValueError, TypeError, AttributeError) as error:
        message = input_error(error) or " ".join(str(error).split())
        raise InputError(f"The base of the checkpoint cannot be read: {message} Give it as --base.") from error


def find_trained(checkpoint: str | None, run: Sequence[str]) -> str | None:
    """The path of the checkpoint that is meant: as it is given, or the best or last one of a run.

    Args:
        checkpoint: a path, `auto`, `best` or `last`; None for the best one of the run that the options name.
        run: options of `fit` that name the run; without any, its folder is the current one.

    Returns:
        The path; None if neither a checkpoint nor a run is given.

    Raises:
        InputError: the run has no such checkpoint, or the path is empty.
    """
    if checkpoint == "":
        raise InputError("checkpoint is empty. Give a checkpoint, 'auto', 'best' or 'last', or leave it out.")
    if checkpoint not in NAMED and not (checkpoint is None and run):
        return checkpoint
    config = run_config(run) if run else Namespace(trainer=Namespace(), model=None)
    config["ckpt_path"] = checkpoint or "best"
    return find_checkpoint("export", config, "checkpoint")


class RunCLI(NRTCLI):
    """Reads the options of `fit` and builds nothing."""

    @override
    def _parse_ckpt_path(self) -> None:
        pass

    @override
    def _set_seed(self) -> None:
        pass

    @override
    def before_instantiate_classes(self) -> None:
        pass

    @override
    def instantiate_classes(self) -> None:
        pass

    @override
    def after_instantiate_classes(self) -> None:
        pass

    @override
    def _run_subcommand(self, subcommand: str) -> None:
        pass


def run_config(options: Sequence[str]) -> Namespace:
    """The settings of a run, from the options of `fit`."""
    settings: dict[str, Any] = {"save_config_callback": None}
    return make_cli(RunCLI, ["fit", *options], **settings).config.fit


def split_options(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate a command's own options from those of `fit`, which name a run.

    >>> split_options(["--config", "mine.yaml", "--out=m", "--trainer.default_root_dir=runs/2"])
    (['--out=m'], ['--config', 'mine.yaml', '--trainer.default_root_dir=runs/2'])
    """
    own: list[str] = []
    run: list[str] = []
    taken = own
    for word in args:
        if word.startswith("-") or taken is own or "=" in taken[-1] or not taken[-1].startswith("-"):
            taken = run if word.partition("=")[0].partition(".")[0] in OF_THE_RUN else own
        taken.append(word)
    return own, run
