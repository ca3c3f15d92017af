"""Packages that only some users need."""

from __future__ import annotations

from importlib.util import find_spec

from nrt_lightning.errors import InputError


def require(package: str, what: str) -> None:
    """Raise where a package is missing.

    Args:
        package: what is imported.
        what: the setting that needs it.

    Raises:
        InputError: with the command that installs it.
    """
    if find_spec(package) is None:
        raise InputError(f"{what} needs {package}: pip install 'nrt-lightning[qlora]'.")
