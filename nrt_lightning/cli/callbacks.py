"""What several configs say about `trainer.callbacks`."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

log = logging.getLogger(__name__)
ONE_A_RUN = (  # a later config replaces that of an earlier one
    "ResultsFile", "BestAndLast", "StepAxis", "TraceSamples", "AnswerHeatMap", "Dashboard", "RunReport"
)  # fmt: skip


def names_in(callbacks: Any) -> list[str]:
    """Class names of callbacks in a config.

    >>> names_in([{"class_path": "nrt_lightning.TraceSamples"}, "lightning.pytorch.callbacks.Timer"])
    ['TraceSamples', 'Timer']
    """
    items = callbacks if isinstance(callbacks, list) else [] if callbacks is None else [callbacks]
    paths = [item if isinstance(item, str) else str(item["class_path"]) for item in items]
    return [path.rpartition(".")[2] for path in paths]


def report_replaced(configs: Iterable[Any]) -> None:
    """Say which callbacks a config drops, because its list replaces that of an earlier one.

    Args:
        configs: paths of the configs, in the order in which they are read.
    """
    listed: list[str] = []
    for path in configs:
        try:
            trainer = (yaml.safe_load(Path(str(path)).read_text(encoding="utf-8")) or {}).get("trainer") or {}
            if "callbacks" in trainer:
                kept = names_in(trainer["callbacks"])
                if dropped := [name for name in listed if name not in kept]:
                    log.warning(
                        "%s: trainer.callbacks replaces the earlier list, without %s. `callbacks+:` adds to it.",
                        path, ", ".join(dropped),
                    )  # fmt: skip
                listed = kept
            listed += names_in(trainer.get("callbacks+"))
        except (OSError, ValueError, AttributeError, KeyError, TypeError, yaml.YAMLError):
            continue  # the parser has read it in another way


def last_of_each(callbacks: Any) -> Any:
    """The callbacks with only the last of each class in `ONE_A_RUN`.

    Args:
        callbacks: settings of `trainer.callbacks`.
    """
    if not isinstance(callbacks, list):
        return callbacks
    names = names_in(callbacks)
    replaced = [name in ONE_A_RUN and name in names[number + 1 :] for number, name in enumerate(names)]
    return [callback for callback, earlier in zip(callbacks, replaced, strict=True) if not earlier]
