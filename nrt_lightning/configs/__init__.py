"""The configs that the package ships. `nrt:methods/nrt_gm` names one wherever a path of a config is expected."""

from __future__ import annotations

import re
from pathlib import Path

from nrt_lightning.errors import InputError, nearest

FOLDER = Path(__file__).parent
PREFIX = "nrt:"


def names() -> list[str]:
    """Names of all configs, without the prefix.

    >>> "quickstart" in names(), "methods/nrt_gm" in names()
    (True, True)
    """
    paths = sorted(FOLDER.rglob("*.yaml"), key=lambda path: (len(path.relative_to(FOLDER).parts), str(path)))
    return [path.relative_to(FOLDER).with_suffix("").as_posix() for path in paths]


def resolve(path: str, setting: str = "--config") -> str:
    """The path of a config: unchanged, unless it begins with `nrt:`.

    Args:
        path: a path, or `nrt:` and the name of a config.
        setting: where it was given, for the error message.

    Raises:
        InputError: there is no config of that name.

    >>> resolve("mine.yaml"), Path(resolve("nrt:methods/nrt_gm")).name
    ('mine.yaml', 'nrt_gm.yaml')
    """
    if not path.startswith(PREFIX):
        return path
    name = path.removeprefix(PREFIX).removesuffix(".yaml").removesuffix(".yml")
    if name not in names():
        end = name.rpartition("/")[2]
        same = [PREFIX + other for other in names() if other.rpartition("/")[2] == end]
        close = nearest(path, same or [PREFIX + other for other in names()])
        close = close if same or "Did you mean" in close else ""  # rather than all names
        raise InputError(
            f"{setting}: {path!r} is not a config of this package.{close} `nrt-lightning configs` lists all."
        )
    return str(FOLDER / f"{name}.yaml")


def same_name(path: str) -> str:
    """The named config that a missing path may mean; empty if there is none.

    >>> same_name("configs/methods/nrt_gm.yaml"), same_name("mine.yaml")
    ('nrt:methods/nrt_gm', '')
    """
    name = path.removesuffix(".yaml").removesuffix(".yml").removeprefix("./").removeprefix("configs/")
    return PREFIX + name if name in names() else ""


def summary(name: str) -> str:
    """The first sentence of a config's comment, after the command in its first line.

    >>> summary("training/full")
    "Trains all weights with the authors' hyperparameters (arXiv 2602.11549)."
    """
    lines = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    comment: list[str] = []
    for line in lines[1:]:
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    return re.split(r"(?<=\.)\s+(?=[A-Z`])", " ".join(comment).strip(), maxsplit=1)[0]
