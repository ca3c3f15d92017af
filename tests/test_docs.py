"""README and docs/ do what they show: blocks are run, commands parsed, links followed, quoted messages looked up."""

from __future__ import annotations

import ast
import json
import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from nrt_lightning.cli.main import run

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "nrt_lightning"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
OTHER_COMMANDS = {"git", "cd", "pip", ".venv/bin/pip", "python3", ".venv/bin/tensorboard", ".venv/bin/pre-commit",
                  ".venv/bin/python", "bash", "lm_eval", "olmes"}  # fmt: skip
LAUNCHERS = {"torchrun", "srun"}  # start a command many times
SMALL = {  # the README shows a model from the hub, which tests do not reach; they train the embedded one, briefly
    "Qwen/Qwen3-0.6B-Base": "embedded:registers-base",
    "max_trace_tokens=512": "max_trace_tokens=8",
    "val_rows=256": "val_rows=4",
}
HUB_MODEL = re.compile(r"^--model=[\w-]+/[\w.-]+$")
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


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
    """Check one line of a bash block: commands of this package are parsed whole, others must be known ones."""
    words = shlex.split(line, comments=True)
    if words[:1] == ["make"]:
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(targets), line
    elif words[1:2] == ["configs"]:
        run(words[1:])
    elif words[1:2] == ["init"]:
        run([HUB_MODEL.sub("--model=embedded:registers-base", word) for word in words[1:]])
    elif words and words[0].endswith("nrt-lightning"):
        with pytest.raises(SystemExit) as caught:
            run([*words[1:], *([] if any("help" in word for word in words) else ["--print_config"])])
        assert caught.value.code in (0, None), line
    elif "nrt_lightning" in words and words[0] in LAUNCHERS:
        run_command(shlex.join(["nrt-lightning", *words[words.index("nrt_lightning") + 1 :]]))
    elif words:
        assert words[0] in OTHER_COMMANDS, line


@pytest.fixture
def readme_rows(tmp_path: Path) -> None:
    """The `train.jsonl` that the README assumes, as small as `SMALL` makes the rest."""
    row = {"question": "a4b*2c+2d+3?dc:", "answer": "d3,c0"}
    (tmp_path / "train.jsonl").write_text(16 * (json.dumps(row) + "\n"))


@each_page
def test_blocks_do_what_they_say(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readme_rows: None
) -> None:
    """Python runs, in one namespace per page; YAML is kept under the name in its first line; bash is parsed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["nrt-lightning"])
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page.read_text()):
        if block.language == "python":
            source = "\n" * (block.line - 1) + block.text
            if page == ROOT / "README.md":
                for shown, small in SMALL.items():
                    assert shown in source, f"{page.name}:{block.line}: {shown} is in SMALL but not in the block"
                    source = source.replace(shown, small)
            exec(compile(source, str(page), "exec"), namespace)
        elif block.language == "yaml":
            name = block.text.splitlines()[0].removeprefix("# ")
            assert re.fullmatch(r"[\w.-]+\.yaml", name), f"{page.name}:{block.line}: begin with '# name.yaml'"
            (tmp_path / name).write_text(block.text)
        elif block.language == "bash":
            for line in block.text.replace("\\\n", " ").splitlines():
                run_command(line)


@each_page
def test_every_block_has_a_language_that_is_checked_or_is_a_picture(page: Path) -> None:
    assert {block.language for block in blocks(page.read_text())} <= {"python", "yaml", "bash", "", "bibtex"}


@each_page
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


@pytest.mark.parametrize("start", ["README.md", "docs/README.md"])
def test_every_page_is_reached_from(start: str) -> None:
    found, waiting = set(), [ROOT / start]
    while waiting:
        page = waiting.pop()
        found.add(page)
        targets = (page.parent / target.partition("#")[0] for target in LINK.findall(page.read_text()))
        waiting += [t.resolve() for t in targets if t.suffix == ".md" and t.resolve() not in found]
    assert set(PAGES) <= found


def test_the_index_lists_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / target.partition("#")[0]).resolve() for target in LINK.findall(index.read_text())}
    assert set(PAGES) - {index} <= listed


def test_pages_that_code_and_configs_name_exist() -> None:
    sources = [path for folder in ("nrt_lightning", "benchmarks", "configs", "tests") for path in
               (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml")]  # fmt: skip
    named = {name for path in [ROOT / "Makefile", *sources] for name in re.findall(r"docs/\w+\.md", path.read_text())}
    assert named
    assert {name for name in named if not (ROOT / name).exists()} == set()


@each_page
def test_files_in_code_spans_exist(page: Path) -> None:
    names = re.findall(r"`((?:[\w-]+/)+[\w-]+\.py)`", FENCE.sub("", page.read_text()))
    assert {name for name in names if not any((home / name).exists() for home in (ROOT, PACKAGE))} == set()


@each_page
def test_names_of_the_package_exist(page: Path) -> None:
    """Classes in code spans of tables and text, so that a renamed class is renamed here too."""
    defined = {name for path in PACKAGE.rglob("*.py") for name in re.findall(r"^class (\w+)", path.read_text(), re.M)}
    spans = re.findall(r"`([A-Z][a-z]+[A-Z]\w*|LogProb|CISPO)(?:\([^`]*\))?`", FENCE.sub("", page.read_text()))
    elsewhere = {"LightningModule", "LightningDataModule", "DataLoader", "ModelCheckpoint", "Trainer", "TensorBoard",
                 "ModelParallelStrategy"}  # fmt: skip
    assert set(spans) - elsewhere - defined == set()


@cache
def literals() -> list[str]:
    """Every string of the package's code, with `...` for what an f-string or a logging call fills in."""

    def text(node: ast.AST) -> str:
        if isinstance(node, ast.Constant):
            return re.sub(r"%[sdr]|%\.\df", "...", str(node.value))
        return "".join(map(text, node.values)) if isinstance(node, ast.JoinedStr) else "..."

    trees = (ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py"))
    return [text(node) for tree in trees for node in ast.walk(tree) if isinstance(node, (ast.Constant, ast.JoinedStr))]


def test_quoted_messages_exist_in_the_code() -> None:
    """In the first column of the troubleshooting page; `...` stands for any text."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    cells = re.findall(r"^\| (`[^|]+`) \|", page, re.MULTILINE)
    quoted = [quote for cell in cells for quote in re.findall(r"`([^`]+)`", cell)]
    assert len(quoted) > 30
    patterns = {
        quote: re.compile(".*".join(map(re.escape, re.split(r" ?\.\.\. ?", quote))), re.DOTALL) for quote in quoted
    }
    missing = {q for q, pattern in patterns.items() if not any(pattern.search(text) for text in literals())}
    assert missing == set()


def test_the_readme_table_lists_only_metrics_that_are_written() -> None:
    columns = re.search(r"^\| run \|(.+)\|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    from nrt_lightning.callbacks.results import COLUMNS

    assert columns is not None
    assert {name.strip() for name in columns[1].split("|")} <= set(COLUMNS.values())
