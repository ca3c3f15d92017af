"""Check that the configs of a comparison name test data, before anything is run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from nrt_lightning.configs import resolve
from nrt_lightning.errors import InputError

TEST_OPTIONS = ("--data.test", "--data.init_args.test")


def check_test_data(method: str, words: Iterable[str]) -> None:
    """Check that a method's configs and options set `data.test` of a `QADataModule`: each run is tested at its end.

    Other data modules are checked by the run, before its first step.

    Args:
        method: its name.
        words: configs and options, in the order in which they are read.

    Raises:
        InputError: names the method.
    """
    kind, test = "", None
    for word in words:
        if word.startswith(TEST_OPTIONS):
            option, _, value = word.partition("=")
            test = value if option not in TEST_OPTIONS or value != "null" else None
        elif word.startswith(("--data=", "--data.class_path=")):
            kind = word.partition("=")[2]
        elif not word.startswith("--"):
            data = data_of(word)
            kind, settings = data.get("class_path", kind), data.get("init_args", data)
            if isinstance(settings, Mapping):
                test = settings.get("test", test) or settings.get("test_rows")
    if kind.rpartition(".")[2] == "QADataModule" and test is None:
        raise InputError(
            f"methods.{method}: none of its configs sets data.test, and every run is tested after training. Add the "
            "test data to configs, or as --data.test=... to options."
        )


def data_of(path: str) -> Mapping[str, Any]:
    """The key `data` of a config; empty if there is none. The run reports what cannot be read."""
    try:
        config = yaml.safe_load(Path(resolve(path)).read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    data = config.get("data") if isinstance(config, Mapping) else None
    return data if isinstance(data, Mapping) else {}
