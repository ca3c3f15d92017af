"""What people expect of a repository fits together: citation, workflow, templates, Dockerfile."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import nrt_lightning

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_the_citation_has_the_version_and_the_paper() -> None:
    citation = read(ROOT / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == nrt_lightning.__version__
    assert citation["authors"] == [{"name": "The nrt_lightning developers"}]
    [paper] = citation["references"]
    assert "2602.11549" in paper["url"]
    readme = (ROOT / "README.md").read_text()
    assert paper["title"] in readme
    assert all(f"{author['family-names']}, {author['given-names']}" in readme for author in paper["authors"])
    assert nrt_lightning.__version__ in re.search(r"```bibtex\n(.*?)```", readme, re.DOTALL)[1]  # type: ignore[index]


def test_the_workflow_is_ci_run() -> None:
    workflow = read(GITHUB / "workflows" / "ci.yml")
    steps = workflow["jobs"]["ci"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["bash .ci/run"]
    lowest = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert lowest is not None
    assert lowest[1] in workflow["jobs"]["ci"]["strategy"]["matrix"]["python"]


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_issue_forms_ask_for_something(name: str) -> None:
    form = read(GITHUB / "ISSUE_TEMPLATE" / f"{name}.yml")
    assert form["name"]
    assert form["description"]
    assert any(part["type"] == "textarea" and part.get("validations") for part in form["body"])


def test_the_image_copies_what_exists_and_what_is_not_ignored() -> None:
    text = (ROOT / "Dockerfile").read_text()
    copied = [name for line in re.findall(r"^COPY (.+) \./.*$", text, re.MULTILINE) for name in line.split()]
    assert copied
    assert all((ROOT / name).exists() for name in copied)
    kept = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert set(copied) <= set(kept)
    extras = re.search(r"^ARG EXTRAS=(.+)$", text, re.MULTILINE)
    assert extras is not None
    known = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert set(extras[1].split(",")) <= set(known)


def test_no_address_of_the_repository_is_made_up() -> None:
    written = "".join(
        path.read_text() for path in (ROOT / "CITATION.cff", ROOT / "pyproject.toml", ROOT / "mkdocs.yml")
    )
    assert "repository-code" not in written
    assert not re.search(r"github\.com|repo_url|site_url", written)
