"""What README and docs/ show is what happens: blocks are run, commands parsed, links followed."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nrt_lightning.cli.main import run

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
OTHER_COMMANDS = {"git", "cd", "pip", ".venv/bin/pip", "python3", ".venv/bin/tensorboard", ".venv/bin/pre-commit",
                  ".venv/bin/python", "bash"}  # fmt: skip
LAUNCHERS = {"torchrun", "srun"}  # start a command many times


@dataclass
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    line: int


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a page, in order.

    >>> blocks("words\\n```python\\nx = 1\\n```\\n")
    [Block(language='python', text='x = 1\\n', line=3)]
    """
    return [Block(m[1], m[2], text.count("\n", 0, m.start()) + 2) for m in FENCE.finditer(text)]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them.

    >>> sorted(anchors("# The marker\\n## What fails, and why"))
    ['the-marker', 'what-fails-and-why']
    """
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(text)}


def run_command(line: str) -> None:
    """Check one line of a bash block: our own commands are parsed whole, others must be known ones."""
    words = shlex.split(line, comments=True)
    if words[:1] == ["make"]:
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(targets), line
    elif words and words[0].endswith("nrt-lightning"):
        with pytest.raises(SystemExit) as caught:
            run([*words[1:], *([] if "--help" in words else ["--print_config"])])
        assert caught.value.code in (0, None), line
    elif "nrt_lightning" in words and words[0] in LAUNCHERS:
        run_command(shlex.join(["nrt-lightning", *words[words.index("nrt_lightning") + 1 :]]))
    elif words:
        assert words[0] in OTHER_COMMANDS, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_do_what_they_say(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python runs, in one namespace a page; YAML is kept under the name in its first line; bash is parsed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["nrt-lightning"])
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page.read_text()):
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), namespace)
        elif block.language == "yaml":
            name = block.text.splitlines()[0].removeprefix("# ")
            assert re.fullmatch(r"[\w.-]+\.yaml", name), f"{page.name}:{block.line}: begin with '# name.yaml'"
            (tmp_path / name).write_text(block.text)
        elif block.language == "bash":
            for line in block.text.replace("\\\n", " ").splitlines():
                run_command(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_has_a_language_that_is_checked_or_is_a_picture(page: Path) -> None:
    assert {block.language for block in blocks(page.read_text())} <= {"python", "yaml", "bash", "", "bibtex"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    for target in LINK.findall(text):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(path.read_text()), f"{page.name}: {target}"


def test_every_page_is_reached_from_the_readme() -> None:
    found, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        found.add(page)
        targets = (page.parent / target.partition("#")[0] for target in LINK.findall(page.read_text()))
        waiting += [t.resolve() for t in targets if t.suffix == ".md" and t.resolve() not in found]
    assert set(PAGES) <= found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_of_the_package_exist(page: Path) -> None:
    """Classes in code spans of tables and text, so that a renamed class is renamed here too."""
    import nrt_lightning
    import nrt_lightning.data
    import nrt_lightning.functional
    import nrt_lightning.losses
    import nrt_lightning.metrics
    import nrt_lightning.models
    import nrt_lightning.modules.base
    import nrt_lightning.rewards
    import nrt_lightning.rollouts
    import nrt_lightning.structures

    homes = [nrt_lightning, *(vars(nrt_lightning)[name] for name in (
        "data", "functional", "losses", "metrics", "models", "modules", "rewards", "rollouts", "structures"
    ))]  # fmt: skip
    spans = re.findall(r"`([A-Z][a-z]+[A-Z]\w*|LogProb|CISPO)(?:\([^`]*\))?`", FENCE.sub("", page.read_text()))
    elsewhere = {"LightningModule", "LightningDataModule", "DataLoader", "ModelCheckpoint", "Trainer", "TensorBoard",
                 "ModelParallelStrategy"}  # fmt: skip
    missing = {name for name in spans if name not in elsewhere and not any(hasattr(home, name) for home in homes)}
    assert missing == set()


def test_the_readme_table_lists_only_metrics_that_are_written() -> None:
    columns = re.search(r"^\| run \|(.+)\|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    from nrt_lightning.callbacks.results import COLUMNS

    assert columns is not None
    assert {name.strip() for name in columns[1].split("|")} <= set(COLUMNS.values())
