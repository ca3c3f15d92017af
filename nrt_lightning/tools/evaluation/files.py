"""The two files of an evaluation, before it is known which: what may be written, and what is left alone."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import IO

from nrt_lightning.errors import InputError

KIND = "nrt-lightning evaluate"
BEGINS = f'{{"kind": "{KIND}", "evaluation": {{'.encode()  # of the rows
LONGEST = 10_000_000  # bytes of the first line


def rows_path_of(path: Path) -> Path:
    """The file of the rows, beside that of the figures."""
    return path.with_suffix(".rows.jsonl")


def check_out(path: Path, *, overwrite: bool = False) -> None:
    """Check that the files can be written, and that nothing but an evaluation would be replaced.

    Args:
        path: of the figures, `NAME.json`.
        overwrite: the files of an evaluation may be replaced.

    Raises:
        InputError: names the file, and what is there.
    """
    where = f"--out={str(path)!r}"
    if path.suffix != ".json":
        raise InputError(f"{where}: give the name of a .json file.")
    rows = rows_path_of(path)
    there = [file for file in (path, rows) if is_file(file)]
    for file in there:
        if not (figures(file) if file == path else begun(file)):
            raise InputError(f"{where}: {file} is no file of `{KIND}`. Give another --out, or remove it.")
    if path in there and (rows not in there or not first_line(rows).endswith(b"\n")) and not overwrite:
        what = "without its first line" if rows in there else "missing"
        raise InputError(f"{where} exists, but {rows.name} is {what}. Give another --out, or --overwrite=true.")


def is_file(path: Path) -> bool:
    """True for a file, False for nothing.

    Raises:
        InputError: something else is there, such as a directory, a link or a pipe, or the name cannot be used.
    """
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:  # too long; a null character
        problem = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"--out: {str(path)[:120]!r} cannot be written ({problem}). Give another name.") from None
    if not stat.S_ISREG(mode):
        raise InputError(f"--out: {path} is not a regular file. Give another name.")
    return True


def figures(path: Path) -> bool:
    """True for the figures of an evaluation."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("kind") == KIND


def begun(path: Path) -> bool:
    """True for the rows of an evaluation, or what a kill leaves of their first line."""
    first = first_line(path)
    if not first.endswith(b"\n"):
        return first.startswith(BEGINS) or BEGINS.startswith(first)
    try:
        found = json.loads(first)
        return bool(found["kind"] == KIND and isinstance(found["evaluation"], dict))
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def first_line(path: Path) -> bytes:
    """The first line of a file; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.readline(LONGEST)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}). Give another --out.") from error


def lock(file: IO[bytes], path: Path) -> None:
    """Keep other processes from writing to a file, as long as it is open.

    Raises:
        InputError: another process writes to it.
    """
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"{path} is being written by another evaluation. Wait for it, or give another --out."
        ) from None
    except (ImportError, OSError):  # Windows, and file systems without locks
        pass
