"""Digests of the files of a checkpoint directory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

NAME = "manifest.json"
NEEDED = ("meta.pt", ".metadata")  # which Lightning and torch write last
CHUNK = 2**22  # bytes


def digests(directory: Path, names: Iterable[str]) -> dict[str, str]:
    """A digest of each of these files, which are synchronized to the disk."""
    found = {}
    for name in names:
        digest = hashlib.sha256()
        with (directory / name).open("rb") as file:
            os.fsync(file.fileno())
            while chunk := file.read(CHUNK):
                digest.update(chunk)
        found[name] = digest.hexdigest()
    return found


def write_manifest(directory: Path, found: dict[str, str]) -> None:
    """Write the digests of a directory's files into it."""
    with (directory / NAME).open("w", encoding="utf-8") as file:
        json.dump({"sha256": found}, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())


def damage_of_directory(directory: Path) -> str | None:
    """What is wrong with a checkpoint directory; None if nothing is known to be.

    One that has no manifest was written by Lightning alone: it is then only seen whether it was finished.
    """
    for name in NEEDED:
        if not (directory / name).is_file():
            return f"it was not finished: {name} is missing"
    try:
        expected = json.loads((directory / NAME).read_text(encoding="utf-8"))["sha256"]
        missing = [name for name in expected if not (directory / name).is_file()]
        if missing:
            return f"its file {missing[0]} is missing"
        different = [name for name, digest in digests(directory, expected).items() if digest != expected[name]]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its {NAME} cannot be read ({type(error).__name__})"
    return f"the digest of {different[0]} differs" if different else None
