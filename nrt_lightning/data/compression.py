"""A bound on what compressed files decompress to: small files can hold gigabytes."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
from pathlib import Path
from typing import Any

from nrt_lightning.errors import InputError

RATIO = 200  # decompressed bytes per byte; texts have 3 to 20
FREE = 64 * 2**20  # bytes that any file may decompress to
CHUNK = 2**20
OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def check_size(path: Path, compressed: int, decompressed: int) -> None:
    """Check how far a file is compressed.

    Args:
        path: of the file.
        compressed: its bytes.
        decompressed: bytes that it decompresses to, or a lower bound.

    Raises:
        InputError: names the file and the sizes.
    """
    if decompressed > max(FREE, RATIO * compressed):
        raise InputError(
            f"{path}: {compressed} bytes decompress to {decompressed} or more, over {RATIO} times as many. Check where "
            "the file comes from, and decompress it yourself."
        )


def check_compressed(path: Path) -> None:
    """Check how far a `.gz`, `.bz2`, `.xz` or `.zip` file is compressed, without keeping its contents.

    Raises:
        InputError: it is damaged, or far larger when decompressed; names the file.
    """
    suffix, compressed = path.suffix.lower(), path.stat().st_size
    try:
        if suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                check_size(path, compressed, sum(entry.file_size for entry in archive.infolist()))
        elif suffix in OPENERS:
            count = 0
            with OPENERS[suffix](path) as file:
                while chunk := file.read(CHUNK):
                    count += len(chunk)
                    check_size(path, compressed, count)
    except (OSError, EOFError, zipfile.BadZipFile, lzma.LZMAError) as error:
        raise InputError(f"{path}: cannot be decompressed ({error}). Write it again.") from None
