"""Upload of an export to the Hugging Face hub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from nrt_lightning.errors import InputError

TOKEN = "HF_TOKEN"  # the environment variable
UNREACHABLE = {"ConnectError", "TimeoutException", "OfflineModeIsEnabled", "ConnectionError"}  # of several libraries
REASONS = {
    401: f"the hub does not accept the token. Set {TOKEN} to a valid one",
    403: f"the token may not write there. Set {TOKEN} to one that may write to this owner",
    409: "the repository exists. Give another name, or set overwrite to true to replace its files",
}


@dataclass(frozen=True)
class Hub:
    """A model repository on the Hugging Face hub.

    Args:
        name: `OWNER/NAME`.
        private: nobody else may read it.
        overwrite: replace the files of a repository that exists.

    Raises:
        InputError: the name cannot be that of a repository.
    """

    name: str
    private: bool = field(default=False, kw_only=True)
    overwrite: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        try:
            validate_repo_id(self.name)
        except HFValidationError as error:
            raise InputError(f"push_to_hub={self.name!r} is no name of a repository ({one_line(error)}).") from error
        if "/" not in self.name:
            raise InputError(f"push_to_hub={self.name!r} has no owner. Give OWNER/{self.name}.")

    @property
    def api(self) -> huggingface_hub.HfApi:
        """The hub, with the token of the environment.

        Raises:
            InputError: there is none.
        """
        token = os.environ.get(TOKEN, "").strip()
        if not token:
            raise InputError(
                f"push_to_hub={self.name!r}: no token. Set the environment variable {TOKEN} to one that may write."
            )
        return huggingface_hub.HfApi(token=token)

    def create(self) -> str:
        """Create the repository, before anything is computed.

        Returns:
            Its address.

        Raises:
            InputError: the repository exists, or the hub refuses or cannot be reached.
        """
        api = self.api
        with self._one_line():
            address = api.create_repo(
                self.name, repo_type="model", private=self.private or None, exist_ok=self.overwrite
            )
            if self.private and self.overwrite and not api.repo_info(self.name, repo_type="model").private:
                raise InputError(
                    f"push_to_hub={self.name!r} exists and is public, but private is true. Make it private on the hub, "
                    "or give another name."
                )
        return str(address)

    def upload(self, directory: Path) -> None:
        """Upload a directory as one commit. With `overwrite`, files that it does not have are deleted.

        Raises:
            InputError: the hub refuses or cannot be reached.
        """
        api = self.api
        with self._one_line():
            api.upload_folder(
                repo_id=self.name,
                folder_path=str(directory),
                repo_type="model",
                commit_message="Export of nrt-lightning",
                delete_patterns="*" if self.overwrite else None,
            )

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        """Raise the hub's errors as `InputError` of one line."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # of several libraries and versions
            raise InputError(f"push_to_hub={self.name!r}: {reason(error)}.") from error


def reason(error: Exception) -> str:
    """Why the hub cannot be used, and the fix.

    >>> reason(ConnectionError("no route"))
    'the hub cannot be reached (no route). Check the network'
    """
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in REASONS:
        return REASONS[status]
    if UNREACHABLE.intersection(kind.__name__ for kind in type(error).__mro__):
        return f"the hub cannot be reached ({one_line(error)}). Check the network"
    return f"the hub cannot be used ({one_line(error)})"


def one_line(error: Exception) -> str:
    """The message of an error in one line, without its last full stop."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
