"""The type of arguments that take a path beside a class, for jsonargparse, which would read or import such text."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse.typing import register_type

from nrt_lightning.data.readers import READERS
from nrt_lightning.data.sources import QASource
from nrt_lightning.structures import Row

CLASS_NAME = re.compile(r"([^\W\d]\w*\.)*[A-Z]\w*")  # others may be given as `class_path`


class DataPath(os.PathLike[str]):
    """Type annotation of a path that the parser neither reads as a config file nor imports.

    The parser does not read config files for a union that contains a path type. It still tries to import the text:
    `train.csv` would import `train.py`. Therefore this type is the first of the union, and accepts every text that
    cannot be the name of a class.
    """


def data_path(text: str) -> str:
    """The text if it is a path or a hub name; raises `ValueError` if it can be the name of a class.

    >>> data_path("dates.csv"), data_path("allenai/tulu-3-sft-mixture")
    ('dates.csv', 'allenai/tulu-3-sft-mixture')
    """
    if not is_data_path(text):
        raise ValueError(f"{text!r} is no path")
    return text


def is_data_path(value: object) -> bool:
    """True for a text that names an existing path, ends like a data file, or is no capitalized name."""
    if not isinstance(value, str) or not value:
        return False
    path = Path(value).expanduser()
    return CLASS_NAME.fullmatch(value) is None or path.suffix.lower() in READERS or os.path.lexists(path)


register_type(DataPath, data_path, data_path, type_check=lambda value, _: is_data_path(value))

if TYPE_CHECKING:  # what Python may give; rows are no arguments of the parser, which would take them for classes
    Source = QASource | str | os.PathLike[str] | Iterable[Mapping[str, Any] | Row] | Mapping[str, Any] | None
else:
    Source = DataPath | QASource | str | None  # no os.PathLike, which would take the settings of a misspelled class
