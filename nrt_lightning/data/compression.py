"""A bound on what compressed files decompress to: small files can hold gigabytes."""

from __future__ import annotations

from pathlib import Path

from nrt_lightning.errors import InputError

RATIO = 200  # decompressed bytes per byte; texts have 3 to 20
FREE = 64 * 2**20  # bytes that any file may decompress to


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
