"""Settings of a run as one flat dictionary, for loggers."""

from __future__ import annotations

import warnings
from typing import Any

import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.cli import SaveConfigCallback

TRAINER = ("max_epochs", "max_steps", "accumulate_grad_batches", "gradient_clip_val", "precision", "world_size")
DATA = ("batch_size", "eval_batch_size", "window", "max_prompt_tokens", "max_answer_tokens")


def run_settings(trainer: Trainer, module: Any) -> dict[str, Any]:
    """The run's settings by the names of the command line: its config, or what is known of a run from Python."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, SaveConfigCallback):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return flat(yaml.safe_load(callback.parser.dump(callback.config)) or {})
    data = getattr(trainer, "datamodule", None)
    parts: dict[str, Any] = {
        "trainer": {name: getattr(trainer, name) for name in TRAINER},
        "model": {"class_path": type(module).__name__, **module.describe(), "policy": module.policy.settings},
        "data": {name: getattr(data, name) for name in DATA if hasattr(data, name)},
    }
    return flat(parts)


def flat(settings: Any, name: str = "") -> dict[str, Any]:
    """Nested settings by dotted names, as they are written on the command line: without `init_args`.

    >>> flat({"model": {"class_path": "A", "init_args": {"x": 1, "parts": [{"y": 2}], "sizes": [3, 4]}}})
    {'model.class_path': 'A', 'model.x': 1, 'model.parts.0.y': 2, 'model.sizes': '[3, 4]'}
    """
    if isinstance(settings, dict) and settings:
        pairs = list(settings.items())
    elif isinstance(settings, list) and any(isinstance(item, dict) for item in settings):
        pairs = list(enumerate(settings))
    else:
        plain = isinstance(settings, bool | int | float | str) or settings is None
        return {name: settings if plain else str(settings)}
    found: dict[str, Any] = {}
    for key, value in pairs:
        found |= flat(value, name if key == "init_args" else f"{name}.{key}".lstrip("."))
    return found
