"""Tables of the docs are complete: commands, configs, extras, sources of rows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nrt_lightning.cli.help import TRAINER
from nrt_lightning.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()

PARTS = "| setting | decides | base class | choices |"


def rows(text: str, header: str) -> list[list[str]]:
    """The cells of the table with this header line, without the header.

    >>> rows("| a | b |\\n|---|---|\\n| 1 | 2 |\\n\\ntext", "| a | b |")
    [['1', '2']]
    """
    table = text.partition(header + "\n")[2].partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_every_command_is_listed() -> None:
    listed = re.findall(r"`(\w+)`", " ".join(cells[0] for cells in rows(CONFIGURATION, "| command | does |")))
    assert sorted(listed) == sorted([*TRAINER, *COMMANDS])


def test_every_file_and_folder_of_configs_is_listed() -> None:
    listed = [re.findall(r"^\[([\w./]+)\]", cells[0])[0] for cells in rows(CONFIGURATION, "| file | contains |")]
    there = [path.name + "/" * path.is_dir() for path in (ROOT / "configs").iterdir()]
    assert sorted(listed) == sorted(name for name in there if not name.startswith("__"))


def test_every_source_of_rows_is_listed() -> None:
    import nrt_lightning

    exported = [getattr(nrt_lightning, name) for name in nrt_lightning.__all__]
    classes = [value for value in exported if isinstance(value, type) and issubclass(value, nrt_lightning.QASource)]
    sources = [value.__name__ for value in classes if value is not nrt_lightning.QASource]
    (cells,) = (c for c in rows(CONFIGURATION, PARTS) if c[0] == "`data.train`")
    assert [name for name in sources if f"`{name}`" not in cells[3]] == []


def test_every_extra_is_listed() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    listed = [cells[0].strip("`") for cells in rows((ROOT / "docs" / "README.md").read_text(), "| extra | adds |")]
    assert sorted(listed) == sorted(set(extras) - {"dev"})
