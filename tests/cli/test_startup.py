"""What a command imports before it answers."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "torch", "lightning", "transformers", "torchmetrics", "peft", "bitsandbytes", "datasets", "accelerate",
    "matplotlib", "numpy", "pyarrow",
}  # fmt: skip
COUNT = """
import sys
from nrt_lightning.cli.main import main
try:
    main()
except SystemExit:
    pass
print()
print(len(sys.modules), *sys.modules)
"""


def imported(*words: str) -> tuple[int, set[str]]:
    """The number of modules that a command imports, and their names, dotted ones too."""
    done = subprocess.run([sys.executable, "-c", COUNT, *words], capture_output=True, text=True, check=True)
    count, *names = done.stdout.splitlines()[-1].split()
    return int(count), set(names)


@pytest.mark.parametrize(
    "words",
    [("--version",), ("--help",), ("fit", "--help"), ("validate", "-h"), ("compare", "--help"), ("configs",)],
    ids=" ".join,
)  # fmt: skip
def test_what_needs_no_model_imports_no_torch(words: tuple[str, ...]) -> None:
    count, names = imported(*words)
    assert names & HEAVY == set()
    assert count < 500


def test_an_error_in_a_key_imports_no_adapters_or_compilers() -> None:
    _, names = imported("fit", "--modle.x=1")
    assert "lightning" in names
    assert names & {"peft", "bitsandbytes", "datasets", "pyarrow", "torch._inductor.compile_fx"} == set()


FROZEN = """
import gc
import nrt_lightning.cli.main as command_line
command_line.prepared = lambda args: lambda: print(gc.isenabled(), gc.get_freeze_count() > 1000)
command_line.main()
"""


def test_what_was_imported_is_not_searched_for_garbage_and_what_a_command_makes_is() -> None:
    done = subprocess.run([sys.executable, "-c", FROZEN], capture_output=True, text=True, check=True)
    assert done.stdout == "True True\n"
