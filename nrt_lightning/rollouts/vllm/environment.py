"""The Python that has vLLM, and the environment variables that vLLM reads."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import torch

from nrt_lightning.errors import InputError

SEPARATE = Path(".venv-vllm/bin/python")  # made by `make test-vllm`
QUIET = {"VLLM_NO_USAGE_STATS": "1"}  # otherwise vLLM reports where and how it is used
ON_CPU = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # otherwise it pins its threads to cores that the trainer uses too
}
FOR_WEIGHTS = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}


def vllm_python(given: str | None = None) -> str:
    """Path of a Python that has vLLM: `given`, `VLLM_PYTHON`, `.venv-vllm/bin/python`, or this one.

    Raises:
        InputError: there is none.
    """
    named = given or os.environ.get("VLLM_PYTHON")
    if named is not None:
        if not Path(named).is_file():
            raise InputError(f"serve.python (or VLLM_PYTHON) is {named!r}: no such file. Give the Python of vLLM.")
        return named
    if SEPARATE.is_file():
        return str(SEPARATE.absolute())
    if find_spec("vllm") is None:
        raise InputError(
            "vLLM is not installed here. Create an environment with it, and give its Python as serve.python or "
            f"VLLM_PYTHON; {SEPARATE} is found without a setting. See docs/vllm.md."
        )
    return sys.executable


def missing_variables() -> dict[str, str]:
    """Environment variables that vLLM needs on this machine and that are not set."""
    wanted = QUIET | ({} if torch.cuda.is_available() else ON_CPU)
    return {name: value for name, value in wanted.items() if name not in os.environ}
