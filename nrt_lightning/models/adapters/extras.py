"""Optional packages."""

from __future__ import annotations

from importlib.util import find_spec

from nrt_lightning.errors import InputError


def require(package: str, what: str) -> None:
    """Raise `InputError` with the installation command if a package is missing.

    Args:
        package: the package that is imported.
        what: the setting that needs it.
    """
    if find_spec(package) is None:
        raise InputError(f"{what} needs {package}: pip install 'nrt-lightning[qlora]'.")
