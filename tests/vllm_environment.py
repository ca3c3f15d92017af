"""The Python that has vLLM, for tests marked `vllm`: `VLLM_PYTHON`, else `.venv-vllm/bin/python`, else this one."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

from nrt_lightning import InputError
from nrt_lightning.rollouts.vllm.environment import vllm_python

ROOT = Path(__file__).parents[1]


@cache
def found(module: str) -> tuple[str | None, str]:
    """The Python if it has the module, and otherwise the reason."""
    here = os.getcwd()
    os.chdir(ROOT)
    try:
        python = vllm_python()
    except InputError as error:
        return None, str(error)
    finally:
        os.chdir(here)
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    if subprocess.run([python, "-c", code], capture_output=True).returncode:
        return None, f"{python} has no {module}: make test-vllm installs it"
    return python, ""


def python_with(module: str = "vllm") -> str:
    """The Python with this module; skips the test if there is none."""
    python, reason = found(module)
    if python is None:
        pytest.skip(reason)
    return python
