"""Rows and scores of the tasks of reasoning-gym, more than a hundred generators of reasoning problems."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from typing_extensions import override

from nrt_lightning.data.sources import QASource
from nrt_lightning.errors import InputError, nearest
from nrt_lightning.structures import Row
from nrt_lightning.tasks import gym_items

INSTALL = "pip install 'nrt-lightning[real]'"
OWN = {"seed", "size"}  # settings of the library that the source sets by itself
MOST_SEEDS = 4000  # NumPy's seeds are below 2**32
FUNCTIONS = {"sin", "cos", "tan", "exp", "log", "ln", "sqrt", "asin", "acos", "atan", "sinh", "cosh", "tanh", "Abs"}


@dataclass
class ReasoningGymRow(Row):
    """A row with the item that it was made of, which the library's scorer needs."""

    item: dict[str, Any] = field(default_factory=dict, repr=False)
    task: str = ""
    settings: dict[str, Any] = field(default_factory=dict, repr=False)

    def score(self, answer: str) -> float:
        """The score of an answer, from 0 to 1, by the task's scorer. An answer that it cannot read has 0.

        Some scorers evaluate answers as Python expressions. An answer with more in it than numbers, names, brackets,
        operators and known functions is not given to them and has 0.
        """
        reference = str(self.item["answer"])
        answer = reference if answer.strip() == reference.strip() else answer.strip()
        if answer != reference and not harmless(answer):
            return 0.0
        try:
            return float(scorer(self.task, json.dumps(self.settings)).score_answer(answer, self.item))
        except Exception:  # scorers raise many kinds for texts that they do not expect
            return 0.0


@dataclass
class ReasoningGymSource(QASource):
    """Rows of a task of reasoning-gym (https://github.com/open-thought/reasoning-gym, Apache-2.0).

    A question belongs to one split, by its hash, so that splits share no question for any seeds, sizes and settings.
    Rows are distinct and depend on the settings alone. A larger `size` only appends rows. Requires
    `pip install 'nrt-lightning[real]'`.

    Args:
        task: name of the task, such as `chain_sum`.
        settings: of the task, such as `max_terms`; others keep the library's defaults.
        split: the split of the questions: half of them are in `train`, three twentieths in `validation` and `test`
            each, and the others in `corpus`, for text that a base is pretrained on.
        size: number of rows.
        seed: seed of the sampling.

    Raises:
        InputError: the library is not installed, there is no such task or setting, or there are fewer such questions.

    Example:
        >>> source = ReasoningGymSource("chain_sum", {"max_terms": 3, "max_digits": 1}, size=2)  # doctest: +SKIP
        >>> source.rows()[0].question  # doctest: +SKIP
        'State the final answer to the following arithmetic problem: 6 - 8 + 7 ='
    """

    task: str
    settings: dict[str, Any] = field(default_factory=dict)
    split: Literal["train", "validation", "test", "corpus"] = "train"
    size: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.split not in gym_items.SPLITS:
            raise InputError(
                f"ReasoningGymSource.split={self.split!r}: no such split.{nearest(self.split, gym_items.SPLITS)}"
            )
        if self.size < 1:
            raise InputError(f"ReasoningGymSource.size={self.size}: give at least 1.")
        if not 0 <= self.seed < MOST_SEEDS:
            raise InputError(f"ReasoningGymSource.seed={self.seed}: give a seed from 0 to {MOST_SEEDS - 1}.")
        check_task(self.task, self.settings)

    @override
    def rows(self) -> list[Row]:
        name = f"{self.task}-{self.split}-{self.seed}"
        return [
            ReasoningGymRow(
                id=f"{name}-{index}",
                messages=[{"role": "user", "content": item["question"]}],
                answer=item["answer"],
                origin=f"ReasoningGymSource({self.task!r}, {self.split!r}, seed={self.seed}):{index}",
                item=item,
                task=self.task,
                settings=self.settings,
            )
            for index, item in enumerate(self.items())
        ]

    def items(self) -> list[dict[str, Any]]:
        """The items of the rows, made in a process with a fixed hash seed."""
        request = {"task": self.task, "settings": self.settings, "seed": self.seed, "split": self.split}
        variables = os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder, "items")
            done = subprocess.run(
                [sys.executable, gym_items.__file__, str(target)],
                input=json.dumps(request | {"size": self.size}), env=variables, capture_output=True, text=True,
                check=False,
            )  # fmt: skip
            found = pickle.loads(target.read_bytes()) if target.exists() else last_line(done.stderr)
        if isinstance(found, str):
            raise InputError(
                f"ReasoningGymSource.task={self.task!r}, settings={self.settings}: {found}. "
                f"Lower size={self.size}, change the settings or choose another task."
            )
        return found


def check_task(task: str, settings: dict[str, Any], owner: str = "ReasoningGymSource") -> None:
    """Check the name of a task and its settings.

    Raises:
        InputError: the library is not installed, or there is no such task or setting, or its value is out of range.
    """
    datasets = known_tasks(owner)
    if task not in datasets:
        raise InputError(f"{owner}.task={task!r}: reasoning-gym has no such task.{nearest_of(task, datasets)}")
    known = {setting.name for setting in fields(datasets[task][1])} - OWN
    for name in settings:
        if name in OWN:
            raise InputError(f"{owner}.settings.{name}: set `{name}` of the source, beside `settings`.")
        if name not in known:
            raise InputError(f"{owner}.settings.{name}: the task '{task}' has no such setting.{nearest(name, known)}")
    for number, spec in enumerate(settings.get("datasets") or [] if task == "composite" else []):
        if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
            raise InputError(f"{owner}.settings.datasets[{number}]: give {{name: TASK, weight: 1, config: {{}}}}.")
        check_task(spec["name"], spec.get("config") or {}, f"{owner}.settings.datasets[{number}]")
    try:
        gym_items.make_dataset(task, settings)
    except (AssertionError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{owner}.settings={settings} of '{task}': {error}. Correct the settings.") from error


def known_tasks(owner: str) -> dict[str, Any]:
    """Classes of datasets and their settings by name of the task. Raises `InputError` without the library."""
    try:
        import reasoning_gym  # noqa: F401  (registers all tasks)
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        found = importlib.util.find_spec("reasoning_gym")
        missing = f"reasoning-gym lacks {error.name}" if found else "reasoning-gym is not installed"
        raise InputError(f"{owner or 'reasoning-gym'}: {missing}. Install it with {INSTALL}.") from None
    return DATASETS


def nearest_of(name: str, known: dict[str, Any]) -> str:
    """As `nearest`, but without the names of all tasks."""
    close = nearest(name, known)
    return (
        close if "Did you mean" in close else f" It has {len(known)}: nrt_lightning.tasks.gym_source.known_tasks('')."
    )


@lru_cache(maxsize=8)
def scorer(task: str, settings: str) -> Any:
    """The dataset object that scores answers, of settings as JSON."""
    return gym_items.make_dataset(task, json.loads(settings))


def harmless(text: str) -> bool:
    """Whether a text stays data where it is evaluated as a Python expression: no attributes, no calls, no towers.

    >>> harmless("3*x**2 + sin(x)"), harmless("[['Q', '_']]"), harmless("9**9**9")
    (True, True, False)
    >>> harmless("__import__('os').system('ls')"), harmless("(1).__class__"), harmless("print(1)")
    (False, False, False)
    """
    calls = set(re.findall(r"([^\W\d]\w*)\s*\(", text)) - FUNCTIONS
    attribute = re.search(r"[\w)\]}'\"]\s*\.\s*[^\W\d]", text)
    tower = re.search(
        r"(\*\*|\^)\s*\(?\s*-?\d{4,}|(\*\*|\^).*(\*\*|\^)\s*\d{2,}|(\*\*|\^)\s*\(?\s*\d+\s*(\*\*|\^)", text
    )
    return not calls and not attribute and "__" not in text and tower is None


def last_line(text: str) -> str:
    """The last line of an error output, as the reason of a failure."""
    lines = text.strip().splitlines()
    return lines[-1].rstrip(".") if lines else "it made no items"
