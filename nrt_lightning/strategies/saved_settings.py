"""What the settings in a checkpoint may build: a file of others must not choose the code that runs."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from jsonargparse import _common

from nrt_lightning.errors import InputError

log = logging.getLogger(__name__)

OWN = ("nrt_lightning", "torch.optim")  # parts whose classes may always be built
CLASS_KEYS = ("class_path", "_class_path")
REMOTE_CODE = "trust_remote_code"
INSTANTIATOR = ("_instantiator", "lightning.pytorch.cli.instantiate_module")  # which Lightning's command line saves
DENIED = re.compile(r"Importing '([^']*)' is not allowed")


def listed(allow: str | Sequence[str]) -> tuple[str, ...]:
    """Import paths that a user lists.

    >>> listed("mine.Engine, mine.rewards"), listed(["mine.Engine"])
    (('mine.Engine', 'mine.rewards'), ('mine.Engine',))

    Raises:
        InputError: one is no import path.
    """
    paths = tuple(path.strip() for path in (allow.split(",") if isinstance(allow, str) else allow) if path.strip())
    for path in paths:
        if not all(name.isidentifier() for name in path.split(".")):
            raise InputError(f"--allow={path!r} is no import path. Give a module or class, as --allow=mine.MyEngine.")
    return paths


def trusted(settings: Any, where: str, allow: Sequence[str] = (), *, remote_code: bool = False) -> Any:
    """A copy of a checkpoint's settings that builds only known classes.

    Args:
        settings: plain values, as they were saved.
        where: names the checkpoint in messages.
        allow: modules and classes that may be built besides those of this package and of `torch.optim`.
        remote_code: keep `trust_remote_code`; otherwise it is set to False, with a warning.

    Raises:
        InputError: the settings name another class.
    """
    if isinstance(settings, Mapping):
        found = {}
        for key, value in settings.items():
            if key in CLASS_KEYS:
                check_class(value, where, allow)
            elif key == INSTANTIATOR[0] and value != INSTANTIATOR[1]:
                raise refusal(value, where)
            if key == REMOTE_CODE and value and not remote_code:
                log.warning(
                    "%s asks for %s=%r, which is not used: it would run code that comes with the model. If you trust "
                    "the model, give --%s=true.", where, key, value, key,
                )  # fmt: skip
                value = False
            found[key] = trusted(value, where, allow, remote_code=remote_code)
        return found
    if isinstance(settings, list | tuple):
        return [trusted(value, where, allow, remote_code=remote_code) for value in settings]
    return settings


def check_class(path: Any, where: str, allow: Sequence[str]) -> None:
    """Refuse an import path that is neither of this package, nor of `torch.optim`, nor listed; short names pass."""
    if not isinstance(path, str):
        raise refusal(path, where)
    if "." in path and not any(path == part or path.startswith(f"{part}.") for part in (*OWN, *allow)):
        raise refusal(path, where)


def refusal(path: Any, where: str) -> InputError:
    """The error for a class that may not be built."""
    return InputError(
        f"The settings of {where} name {path!r}, which is neither of nrt_lightning nor of torch.optim, and building it "
        f"would run its code. If you trust the checkpoint, give --allow={path}."
    )


@contextmanager
def only_known_classes(where: str, allow: Sequence[str] = ()) -> Iterator[None]:
    """Let the parser import nothing but known classes, by whatever setting.

    Args:
        where: names the checkpoint in messages.
        allow: modules and classes besides those of this package and of `torch.optim`.

    Raises:
        InputError: the settings name another class, function or module.
    """
    before = dict(_common.parsing_settings)
    verdicts = {"*": False} | dict.fromkeys((*OWN, *allow), True)
    _common.parsing_settings.update(import_path_verdicts=verdicts, import_paths_enforced=True)
    try:
        yield
    except Exception as error:  # the parser raises many kinds
        cause: BaseException | None = error
        while cause is not None:
            if denied := DENIED.search(str(cause)):
                raise refusal(denied[1], where) from None
            cause = cause.__cause__ or cause.__context__
        raise
    finally:
        _common.parsing_settings.update(before)
