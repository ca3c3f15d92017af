"""Items of a reasoning-gym task. Runs as a program of its own, so it imports nothing of this package.

Several tasks draw from sets or from global generators. Their items are the same on every process and in every run only
in a process with a fixed hash seed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import pickle
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SPLITS = {"train": 0.5, "validation": 0.15, "test": 0.15, "corpus": 0.2}
"""Fraction of all questions in each split; `corpus` holds those that a base may be pretrained on."""

CHUNK = 1000  # items of one dataset object: some tasks make all of theirs at once
STRIDE = 1_000_000  # between seeds: item i under seed s of the library is its item i + 1 under seed s - 1
MISSES = 3000  # draws without a new question after which there are no more
EXAMPLES = ("example_answer", "example_correct_answer")  # answers of items that have several


def split_of(question: str) -> str:
    """The split that contains a question, chosen by its hash.

    >>> split_of("State the final answer to the following arithmetic problem: 1 + 2 - 3 =")
    'test'
    """
    digest = hashlib.blake2b(question.encode(), digest_size=4).digest()
    position = int.from_bytes(digest, "big") / 2**32
    for name, fraction in SPLITS.items():
        position -= fraction
        if position < 0:
            return name
    return "corpus"  # reached only if the fractions do not sum to exactly 1


def make_dataset(task: str, settings: dict[str, Any], seed: int = 0, size: int = 1) -> Any:
    """The library's dataset. Its errors are `AssertionError`, `TypeError` and `ValueError`."""
    import reasoning_gym.composite
    from reasoning_gym.factory import create_dataset

    settings = dict(settings)
    if task == "composite":
        specs = [{"weight": 1.0, "config": {}} | spec for spec in settings.get("datasets") or []]
        settings["datasets"] = [reasoning_gym.composite.DatasetSpec(**spec) for spec in specs]
    return create_dataset(task, **settings, seed=seed, size=size)


def draws(task: str, settings: dict[str, Any], seed: int) -> Iterator[dict[str, Any]]:
    """The items of a task without end, as they are drawn."""
    import numpy

    for start in range(seed * STRIDE, (seed + 1) * STRIDE, CHUNK):
        random.seed(start)  # a few tasks draw from the global generators
        numpy.random.seed(start)
        dataset = make_dataset(task, settings, start, CHUNK)
        for index in range(CHUNK):
            yield dataset[index]


def items(task: str, settings: dict[str, Any], seed: int, split: str, size: int) -> list[dict[str, Any]]:
    """Distinct items whose questions are in a split.

    Raises:
        LookupError: there are not so many, or the items have no reference answers.
    """
    found: dict[str, dict[str, Any]] = {}  # by question
    misses = 0
    for item in draws(task, settings, seed):
        item["answer"] = answer_of(item)
        if item["question"] in found or split_of(item["question"]) != split or not item["answer"].strip():
            misses += 1
        else:
            found[item["question"]] = item
            misses = 0
        if len(found) == size:
            return list(found.values())
        if misses > MISSES:
            break
    raise LookupError(f"there are only {len(found)} different questions in the split '{split}'")


def answer_of(item: dict[str, Any]) -> str:
    """The reference answer of an item, or the example of one."""
    answers = [item["answer"], *(item["metadata"].get(name) for name in EXAMPLES)]
    answer = next((answer for answer in answers if answer is not None), None)
    if answer is None:
        raise LookupError("its items have no reference answers, only a scorer")
    return str(answer)


def main() -> None:
    """Read a request from standard input, and write the items, or an error, to the file that is the argument."""
    result: Any
    request = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):  # some tasks print
        try:
            result = items(**request)
        except LookupError as error:
            result = str(error)
    Path(sys.argv[1]).write_bytes(pickle.dumps(result))


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file, whose modules are not top-level modules
    main()
