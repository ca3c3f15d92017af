"""Runs programs in processes forked from one that has imported the libraries: imports take seconds, and forks none.

The process that is forked from has run nothing, so that a program starts as it would in a process of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic

import pytest

TESTS = Path(__file__).parent
IMPORTED = [
    "lightning.pytorch.strategies.fsdp",
    "nrt_lightning.callbacks",
    "nrt_lightning.modules",
    "nrt_lightning.strategies",
    "nrt_lightning.tools.preflight",
    "rollouts.vllm.test_vllm_server_engine",
    "short_runs",
    "torchmetrics.text",
]


def run_forked(script: Path | str, *arguments: object, processes: int = 2, folder: Path | None = None) -> list[str]:
    """Run a script in one process, or in several that know their ranks, and return what each of them has printed.

    Raises:
        AssertionError: a process has failed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    words = [str(script), *map(str, arguments)]
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")]))
        outputs = [Path(place) / str(rank) for rank in range(processes)]
        variables = [dict(os.environ)] if processes == 1 else ranks(processes)
        works = [
            context.Process(target=work, args=(words, *given, folder or place), daemon=True)
            for given in zip(variables, outputs)
        ]
        for each in works:
            each.start()
        failed = wait(works)
        printed = [output.read_text(errors="replace") for output in outputs]
    assert not failed, "\n".join(text[-3000:] for text in printed)
    return printed


def ranks(processes: int) -> list[dict[str, str]]:
    """The variables by which Lightning and torch find the processes of a machine."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(asked.getsockname()[1])}
    common = os.environ | meeting | {"WORLD_SIZE": str(processes)}
    return [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def wait(works: list[BaseProcess], seconds: float = 600) -> bool:
    """Wait for all processes, and end the others of one that fails; return whether one has failed."""
    end = monotonic() + seconds
    while running := [each for each in works if each.exitcode is None]:
        if monotonic() > end or any(each.exitcode for each in works):
            for each in running:
                each.kill()
        connection.wait([each.sentinel for each in running], timeout=1.0)
    return any(each.exitcode for each in works)


def work(words: list[str], variables: dict[str, str], output: Path, folder: Path | str) -> None:
    """Run a script as `python SCRIPT ARGUMENTS` does, with what it prints in a file."""
    missing = [name for name in IMPORTED if name not in sys.modules]
    assert not missing, f"imported anew: {missing}"
    import torch
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    opened = os.open(output, os.O_WRONLY | os.O_CREAT)
    for descriptor in (1, 2):
        os.dup2(opened, descriptor)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    torch.set_num_threads(1)
    rank_zero_only.rank = int(variables.get("RANK", 0))
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")
