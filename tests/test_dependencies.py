"""Dependencies are bounded above, and the tested versions lie within the bounds."""

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "pyproject.toml").read_text()
EXTRAS = ("math-verify", "matplotlib")  # of which no file format and no training depends
LISTS = re.findall(r"^(?:dependencies|math|qlora|real|vllm|bench|plot) = \[(.*?)\]$", TEXT, re.MULTILINE | re.DOTALL)
REQUIRED = [Requirement(text) for part in LISTS for text in re.findall(r'"([^"]+)"', part)]
TESTED = {
    line.partition("==")[0].lower(): Version(line.partition("==")[2].partition(";")[0].strip())
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if "==" in line and not line.startswith("#")
}


@pytest.mark.parametrize("one", REQUIRED, ids=str)
def test_dependencies_are_bounded(one):
    bounded = any(part.operator in ("<", "<=", "==", "~=") for part in one.specifier)
    assert bounded or one.name in (*EXTRAS, "typing-extensions")
    assert one.name not in TESTED or one.specifier.contains(TESTED[one.name])
