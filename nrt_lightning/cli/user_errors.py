"""Errors that a user caused, as one line."""

from __future__ import annotations

import re
import sys
from typing import Any

from nrt_lightning.errors import InputError

PARSED = re.compile(r"^(Does not validate against|Problem with given class_path|Parser key)")  # texts of the parser
INTERVAL = re.compile(r"`val_check_interval` \((\d+)\).* training batches \((\d+)\)", re.DOTALL)  # a text of Lightning
OTHER_TYPE = re.compile(
    r"^(Expected a|Problem|Does not|Not of type)|^Namespace\(.*is no path$", re.DOTALL
)  # types not meant


def misconfigured(error: BaseException) -> bool:
    """True for an error of Lightning about its settings. It raises none before it is imported."""
    return isinstance(error, loaded("lightning.pytorch.utilities.exceptions", "MisconfigurationException"))


def out_of_memory(error: BaseException) -> bool:
    """True for torch's error on a device without free memory."""
    return isinstance(error, loaded("torch", "OutOfMemoryError"))


def loaded(module: str, name: str) -> Any:
    """A class of a module, or none if the module has not been imported."""
    return getattr(sys.modules.get(module), name, ())


def input_error(error: BaseException) -> str | None:
    """The message of the error of a user that caused an error, in one line; None if there is none.

    For a union, the parser tries each type and lists their errors. The error of a constructor is one of the causes.
    """
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, InputError):
            return str(cause)
        if misconfigured(cause):
            return " ".join(str(cause).split())
        if found := INTERVAL.search(str(cause)):
            return (
                f"trainer.val_check_interval={found[1]}: an epoch has {found[2]} micro-batches, so no validation would "
                f"come. Set it to {found[2]} or less, or set trainer.check_val_every_n_epoch=null to count over epochs."
            )
    if not PARSED.search(str(error)):
        return None
    own = [str(cause) for cause in causes if type(cause) is ValueError]
    tried = re.split(r"^ *- ", str(error).partition("Given value")[0], flags=re.MULTILINE)[1:]  # one entry per type
    texts = [text for text in [*own[::-1], *tried[::-1]] if not (PARSED.search(text) or OTHER_TYPE.search(text))]
    return " ".join(texts[0].split()) if texts else None
