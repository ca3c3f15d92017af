"""The files that determine what a run computes, for its fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from nrt_lightning.configs import resolve
from nrt_lightning.errors import InputError

CONFIGS = (".yaml", ".yml")


def config_texts(arguments: Iterable[str]) -> list[str]:
    """The contents of the configs that are given by `--config PATH`."""
    paths = [word for before, word in pairwise(arguments) if before == "--config"]
    return [Path(resolve(path)).read_text(encoding="utf-8") for path in paths]


def named_files(arguments: Iterable[str], base: str) -> dict[str, str]:
    """Digests of other files by their path: those that options or configs name, and those of a local base.

    `--model=FILE` reads a config, and `--data.train=FILE` rows. Configs name further files. Of a base, large files
    count by size and time, because weights are slow to read.
    """
    found: dict[str, str] = {}
    words = list(arguments)
    for before, word in pairwise(["", *words]):
        if before == "--config":
            collect(word, "", found)
        elif word.startswith("--"):
            collect_value(word.partition("=")[2], "", found)
        else:
            collect_value(word, "", found)
    configs = {resolve(word) for before, word in pairwise(words) if before == "--config"}
    files = {path: digest_of(*facts(Path(path))) for path in found if path not in configs}
    place = Path(base).expanduser() if base else None
    if place is not None and place.is_dir():
        files |= {str(path): base_file(path) for path in sorted(place.rglob("*")) if path.is_file()}
    return dict(sorted(files.items()))


def collect(path: str, folder: str, found: dict[str, str]) -> None:
    """Add a file and, if it is a config, the files that it names."""
    try:
        path = resolve(path)
    except InputError:
        return
    if path in found:
        return
    found[path] = folder
    if path.endswith(CONFIGS):
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):  # the run says what is wrong with it
            return
        for text in strings(content):
            collect_value(text, str(Path(path).parent), found)


def collect_value(value: str, folder: str, found: dict[str, str]) -> None:
    """Add the file that a value names, relative to the current directory or to the config's folder."""
    if not value or "\n" in value or len(value) > 1000:
        return
    for path in dict.fromkeys([Path(value).expanduser(), Path(folder) / value]):
        try:
            if path.is_file():
                collect(str(path), folder, found)
                return
        except (OSError, ValueError):
            return


def strings(content: Any) -> Iterator[str]:
    """All texts in nested settings.

    >>> list(strings({"data": {"train": ["a.csv", "b.csv"], "seed": 1}}))
    ['a.csv', 'b.csv']
    """
    if isinstance(content, str):
        yield content
    elif isinstance(content, Mapping):
        for value in content.values():
            yield from strings(value)
    elif isinstance(content, list):
        for value in content:
            yield from strings(value)


def facts(path: Path) -> tuple[str, int, int]:
    """What tells whether a file must be read anew."""
    known = path.stat()
    return str(path), known.st_size, known.st_mtime_ns


@cache
def digest_of(path: str, size: int, time: int) -> str:
    """Digest of a file's content."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def base_file(path: Path, limit: int = 50_000_000) -> str:
    """Digest of a file of a base, or size and time if it is larger than `limit` bytes."""
    name, size, time = facts(path)
    return digest_of(name, size, time) if size <= limit else f"{size} bytes, {time}"
