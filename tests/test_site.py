"""The documentation site: its pages, links, reference, and the names that the migration page gives."""

from __future__ import annotations

import importlib.util
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from nrt_lightning import EXPORTS, HOMES
from nrt_lightning.cli.main import run

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Loader(yaml.SafeLoader):
    """Reads `mkdocs.yml`, whose tags name Python objects."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def settings() -> dict[str, Any]:
    found: dict[str, Any] = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)
    return found


def listed(entry: Any) -> list[str]:
    """The pages of a navigation entry."""
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [page for part in parts for page in listed(part)]


def test_the_navigation_has_every_page_once(hooks: ModuleType) -> None:
    pages = [*PAGES, *hooks.COPIES.values(), *(f"reference/{name}.md" for name in hooks.reference())]
    assert sorted(listed(settings()["nav"])) == sorted(pages)


def test_the_groups_of_the_index_are_those_of_the_site() -> None:
    groups = re.findall(r"^## (.+)$", (DOCS / "README.md").read_text(), re.MULTILINE)
    tabs = [next(iter(entry)) for entry in settings()["nav"]]
    assert groups[:5] == ["Start", "Concepts", "How-to", "Scaling", "Evidence"] == tabs[1:6]


def test_nothing_is_loaded_from_elsewhere() -> None:
    assert settings()["theme"]["font"] is False
    assert "offline" in settings()["plugins"]


def test_the_reference_has_every_public_name(hooks: ModuleType) -> None:
    pages = hooks.reference()
    written = {name for text in pages.values() for name in re.findall(r"^::: (\S+)$", text, re.MULTILINE)}
    assert written == {f"nrt_lightning.{HOMES[name]}.{name}" for name in HOMES}
    assert len(pages) == len(EXPORTS) + 1


@pytest.mark.parametrize(
    ("source", "link", "found"),
    [
        ("chat.md", "[a](export.md#files)", "[a](export.md#files)"),
        ("chat.md", "[a](../README.md#quickstart)", "[a](project/overview.md#quickstart)"),
        ("chat.md", "[a `b`](../configs/quickstart.yaml)", "a `b`"),
        ("chat.md", "[a](https://arxiv.org/abs/1)", "[a](https://arxiv.org/abs/1)"),
        ("chat.md", "[a](#options)", "[a](#options)"),
        ("README.md", "[a](notebooks/first_model.py)", "a"),
        ("project/overview.md", "[a](docs/chat.md)", "[a](../chat.md)"),
        ("project/overview.md", "![a](docs/quickstart.png)", "![a](../quickstart.png)"),
        ("project/overview.md", "[a](CONTRIBUTING.md)", "[a](contributing.md)"),
        ("project/overview.md", "[a](LICENSE)", "a"),
        ("project/contributing.md", "[a](tests/test_architecture.py)", "a"),
    ],
)
def test_links_fit_the_site(hooks: ModuleType, source: str, link: str, found: str) -> None:
    page = type("Page", (), {"file": type("File", (), {"src_uri": source})})
    fence = f"```\n{link}\n```\n"
    assert hooks.on_page_markdown(f"{link}\n\n{fence}", page) == f"{found}\n\n{fence}"


def test_every_option_of_the_migration_page_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    rows = re.findall(r"^\| (?!concept|-)[^|]*\|[^|]*\|[^|]*\|([^|]*)\|$", (DOCS / "migration.md").read_text(), re.M)
    assert len(rows) > 30
    options = [f"--{option}" for row in rows for option in re.findall(r"`([^`]+)`", row)]
    with pytest.raises(SystemExit) as caught:
        run(["fit", "--config=nrt:quickstart", *options, "--print_config"])
    assert caught.value.code in (0, None)


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    runpy.run_path(str(DOCS / "notebooks" / "first_model.py"), run_name="__main__")
    printed = capsys.readouterr().out
    for words in ("test/exact_match", "model.safetensors", "answer: ", "majority@4"):
        assert words in printed


def test_the_notebook_is_one_for_jupytext() -> None:
    text = (DOCS / "notebooks" / "first_model.py").read_text()
    header = yaml.safe_load("".join(re.findall(r"^# ?(.*\n)", text.split("# ---\n")[1], re.MULTILINE)))
    assert header["jupyter"]["jupytext"]["text_representation"]["format_name"] == "percent"
    assert len(re.findall(r"^# %% \[markdown\]$", text, re.MULTILINE)) > 5


@pytest.mark.slow
def test_the_site_is_built_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip(
        "mkdocs", reason="mkdocs is not installed: pip install 'nrt-lightning[docs]'; `make docs` has it"
    )
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    page = (tmp_path / "site" / "reference" / "structures.html").read_text()
    assert "max_trace_tokens" in page
    assert "512" in page
