"""Where vLLM is found, and what it is told by environment variables."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import torch

from nrt_lightning.errors import InputError

OF_ITS_OWN = Path(".venv-vllm/bin/python")  # which `make test-vllm` makes
QUIET = {"VLLM_NO_USAGE_STATS": "1"}  # it would report where and how it is used
ON_CPU = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # it would pin its threads to the cores that the trainer uses, too
}
FOR_WEIGHTS = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}


def vllm_python(given: str | None = None) -> str:
    """The Python that has vLLM: the given one, that of `VLLM_PYTHON`, `.venv-vllm/bin/python`, or this one.

    Raises:
        InputError: none has it.
    """
    named = given or os.environ.get("VLLM_PYTHON")
    if named is not None:
        if not Path(named).is_file():
            raise InputError(f"the Python of vLLM is to be {named!r} (serve.python or VLLM_PYTHON): no such file.")
        return named
    if OF_ITS_OWN.is_file():
        return str(OF_ITS_OWN.absolute())
    if find_spec("vllm") is None:
        raise InputError(
            "vLLM is not installed here. Make an environment of its own for it, and name its Python by serve.python or "
            f"the variable VLLM_PYTHON; {OF_ITS_OWN} is found by itself. See docs/vllm.md."
        )
    return sys.executable


def settings() -> dict[str, str]:
    """Variables for vLLM on this machine, but for those that are set already."""
    wanted = QUIET | ({} if torch.cuda.is_available() else ON_CPU)
    return {name: value for name, value in wanted.items() if name not in os.environ}
