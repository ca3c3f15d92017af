"""Paths of data: what exists, what can be read, and what was probably meant."""

from __future__ import annotations

import os
from pathlib import Path

from nrt_lightning.data.readers import READERS
from nrt_lightning.errors import InputError, nearest


def checked_path(name: str) -> Path:
    """The path of a name, which may be that of a hub dataset.

    Raises:
        InputError: it is a URL, too long, a link to nothing, no file or directory, or cannot be examined.
    """
    if "://" in name:
        raise InputError(f"{short(name)}: a URL is neither a file nor a hub name. Download it, and give the file.")
    if "\0" in name:
        raise InputError(f"{short(name)!r} contains a null character, so it is no path. Correct it.")
    path = Path(name).expanduser()
    try:
        os.fsencode(path)
        if path.is_symlink() and not path.exists():
            target = os.readlink(path)
            raise InputError(
                f"{path}: a symbolic link to {short(target)!r}, which leads nowhere. Give the file itself."
            )
        check_regular(path)
    except OSError as error:
        raise InputError(f"{short(str(path))}: cannot be examined ({error.strerror}). Check the path.") from None
    except UnicodeError:
        raise InputError(f"{name!r} contains a character that no path can have. Correct it.") from None
    return path


def check_regular(path: Path) -> None:
    """Refuse pipes, devices and sockets, which a reader could wait for without end.

    Raises:
        InputError: names the file, which may be inside of the directory.
    """
    for found in [path, *(sorted(path.rglob("*")) if path.is_dir() else ())]:
        if found.exists() and not found.is_file() and not found.is_dir():
            raise InputError(f"{found}: not a regular file or directory. Write the rows into a file.")


def check_local(path: Path, name: str, *, of_the_hub: bool) -> None:
    """Refuse a path that does not exist and is no name of the hub.

    Args:
        path: that does not exist.
        name: as it was given.
        of_the_hub: something else says that the hub is meant, such as a revision.

    Raises:
        InputError: names the path, and similar ones beside it.
    """
    local = name.startswith((".", "/", "~")) or name.count("/") > 1 or (path.suffix and path.name == name)
    if local or ("/" in name and path.parent.is_dir() and not of_the_hub):
        hub = "" if local else f" (A dataset of the hub is read where there is no directory {str(path.parent)!r}.)"
        raise InputError(f"{short(str(path))}: no such file or directory.{siblings(path)}{hub}")


def siblings(path: Path) -> str:
    """Similar names in the directory of a missing path, as the end of an error message."""
    if not path.parent.is_dir():
        return f" There is no directory '{short(str(path.parent))}'. Check the path."
    entries = [entry for entry in path.parent.iterdir() if not entry.name.startswith(".")]
    names = [entry.name for entry in entries if entry.is_dir() or entry.suffix.lower() in READERS]
    return nearest(path.name, names) if names else f" '{path.parent}' contains no data files. Check the path."


def short(text: str) -> str:
    """A text in at most 120 characters.

    >>> short("x" * 300)[-20:]
    'xxxxxxxxxxxxxxxxx...'
    """
    return text if len(text) <= 120 else text[:117] + "..."
