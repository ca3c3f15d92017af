"""`load_from_checkpoint` that builds only known classes."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import lightning as L
from typing_extensions import Self

from nrt_lightning.errors import InputError
from nrt_lightning.strategies.checkpoints import read_settings, untrusted
from nrt_lightning.strategies.saved_settings import REMOTE_CODE, listed, only_known_classes, trusted

POSITIONAL = 4  # the number of `weights_only` among Lightning's further arguments


class TrustedLoading(L.LightningModule):
    """A LightningModule whose checkpoints do not choose the code that runs."""

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        *args: Any,
        allow: str | Sequence[str] = (),
        trust_remote_code: bool = False,
        **settings: Any,
    ) -> Self:
        """Build the module from the settings of a checkpoint that the command line wrote, and load its weights.

        Args:
            checkpoint_path: path of the file, also of another file system, or an open file.
            args: as of Lightning.
            allow: import paths of classes that the settings may build, besides those of this package and of
                `torch.optim`.
            trust_remote_code: run code that comes with the base, if the settings say so.
            settings: as of Lightning; `weights_only=False` also builds objects of other classes, which runs the file's
                code.

        Raises:
            InputError: the settings name another class, or ask for code that comes with the base.
        """
        if len(args) < POSITIONAL:  # Lightning's default for a URL is to run the file's code
            settings["weights_only"] = settings.get("weights_only") is not False
        only = settings.get("weights_only") is not False
        where, known = f"checkpoint_path={str(checkpoint_path)!r}", (*listed(allow), f"{cls.__module__}.{cls.__name__}")
        try:
            saved = read_settings(checkpoint_path, weights_only=only)
        except pickle.UnpicklingError as error:
            raise InputError(untrusted(where, error)) from None
        kept = trusted(saved, where, known, remote_code=trust_remote_code)
        if kept != trusted(saved, where, known, remote_code=True):
            raise InputError(
                f"The settings of {where} ask for {REMOTE_CODE}, which would run code that comes with the model. If "
                f"you trust the model, give {REMOTE_CODE}=True."
            )
        with only_known_classes(where, known):
            return super().load_from_checkpoint(checkpoint_path, *args, **settings)
