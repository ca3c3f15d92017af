"""Imports run one way, and each part imports no more than it needs."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "nrt_lightning"
FILES = sorted(PACKAGE.rglob("*.py"))

# Each part may import the parts of the rows above it, itself, and what ALSO allows.
LAYERS = [
    {"errors", "structures", "assets"},
    {"functional"},
    {"rewards", "advantages", "filters", "losses", "metrics"},
    {"models", "rollouts", "data", "schedules"},
    {"evaluation", "probing"},
    {"signals"},
    {"method", "token_budget", "window"},
    {"checks"},
    {"export"},
    {"callbacks", "strategies", "preflight"},
    {"comparison"},
    {"policy_module", "module", "sft"},
    {"planning"},
    {"suggestions", "cli", "__main__"},
    {"commands"},
    {"__init__"},
]
ALSO = {
    "rollouts": {"models"},
    "probing": {"evaluation"},
    "module": {"policy_module"},
    "sft": {"policy_module"},
    "cli": {"suggestions", "__init__"},  # imports all that the package offers, so that short class names are found
    "suggestions": {"__init__"},  # looks up the names that the package offers
    "__main__": {"cli"},
}
MATHEMATICS = {"functional", "rewards", "advantages", "filters", "losses"}
WITH_LIGHTNING = {
    "policy_module",
    "module",
    "sft",
    "callbacks",
    "strategies",
    "data/datamodule",
    "cli",
    "commands",
    "preflight/sampler",
}


def imported(source: str) -> set[str]:
    """Dotted names of everything a source imports, wherever in it; `from a import b` gives `a.b`.

    >>> sorted(imported("import os.path\\nfrom torch import nn\\ndef f():\\n    from . import x"))
    ['.x', 'os.path', 'torch.nn']
    """
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{'.' * node.level}{node.module or ''}.{alias.name}".replace("..", ".") for alias in node.names}
    return names


def part_of(path: Path) -> str:
    """The part a file belongs to: a subpackage or a module at the top."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def parts(name: str) -> str | None:
    """The part of this package that an imported name is in; None for other packages."""
    root, *rest = name.split(".")
    if root != PACKAGE.name:
        return None
    known = {part for layer in LAYERS for part in layer}
    return rest[0] if rest and rest[0] in known else "__init__"


def allowed(part: str) -> set[str]:
    """The parts that a part may import."""
    below: set[str] = set()
    for layer in LAYERS:
        if part in layer:
            return below | {part} | ALSO.get(part, set())
        below |= layer
    raise AssertionError(f"'{part}' has no place in LAYERS: give it one.")


def ids(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_imports_run_one_way(path: Path) -> None:
    found = {part for name in imported(path.read_text()) if (part := parts(name))}
    assert found <= allowed(part_of(path)), f"{ids(path)} imports {sorted(found - allowed(part_of(path)))}"


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_no_import_is_relative(path: Path) -> None:
    assert not [name for name in imported(path.read_text()) if name.startswith(".")]


@pytest.mark.parametrize("path", [p for p in FILES if part_of(p) in MATHEMATICS], ids=ids)
def test_mathematics_imports_torch_alone(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported(path.read_text())} - set(sys.stdlib_module_names)
    extra = {"numpy"} if path == PACKAGE / "functional" / "randomness.py" else set()
    assert roots <= {"torch", PACKAGE.name} | extra


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_lightning_is_imported_at_the_edge_only(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported(path.read_text())}
    if roots & {"lightning", "pytorch_lightning"}:
        module = str(path.relative_to(PACKAGE).with_suffix(""))
        assert part_of(path) in WITH_LIGHTNING or module in WITH_LIGHTNING
    if "torchmetrics" in roots:
        assert part_of(path) == "metrics"


@pytest.mark.parametrize(
    ("part", "name", "fine"),
    [
        ("models", "nrt_lightning.rollouts.engine", False),
        ("models", "nrt_lightning.data", False),
        ("rollouts", "nrt_lightning.models.policy", True),
        ("rollouts", "nrt_lightning.data", False),
        ("data", "nrt_lightning.models", False),
        ("functional", "nrt_lightning.rewards", False),
        ("rewards", "nrt_lightning.losses", False),
        ("losses", "nrt_lightning.functional", True),
        ("callbacks", "nrt_lightning.module", False),
        ("module", "nrt_lightning.sft", False),
        ("data", "nrt_lightning.Policy", False),
    ],
)
def test_the_rules_tell_right_from_wrong(part: str, name: str, fine: bool) -> None:
    assert (parts(name) in allowed(part)) == fine
