"""From the bytes of data files to texts."""

from __future__ import annotations

from pathlib import Path

from nrt_lightning.errors import InputError


def decode(data: bytes, path: Path, line: int) -> str:
    """The UTF-8 text of bytes that begin at `line`.

    Raises:
        InputError: they are no UTF-8, or UTF-16; names the line.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        raise InputError(
            f"{path}:{line}: not UTF-8 text (byte {data[error.start]:#x}). Save the file as UTF-8."
        ) from None
    check_no_nul(text, path, line)
    return text


def check_no_nul(text: str, path: Path, line: int) -> None:
    """Refuse null characters, which UTF-16 without a mark at its begin has in place of half of its bytes.

    Raises:
        InputError: names the line.
    """
    position = text.find("\0")
    if position >= 0:
        line += text.count("\n", 0, position)
        raise InputError(f"{path}:{line}: holds null characters, as UTF-16 does. Save the file as UTF-8.")
