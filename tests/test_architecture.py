"""Imports run one way, file by file, and each part imports no more than it needs."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "nrt_lightning"
FILES = sorted(PACKAGE.rglob("*.py"))

# In import order: a part may import itself and the parts above it. CONTRIBUTING.md shows the same list.
ORDER = """
    errors files randomness assets
    configs
    functional
    structures
    rewards advantages filters losses metrics
    data
    tasks
    models/sharding
    models/adapters
    models/scoring
    models/policy
    models/references
    models
    signals
    export
    strategies
    rollouts
    training
    evaluation
    tools/report
    callbacks
    modules
    tools/planning
    tools/preflight
    tools/comparison
    tools
    cli
    __main__
"""
LEVELS = {part: level for level, line in enumerate(ORDER.strip().splitlines()) for part in line.split()}
INSIDE_ROLLOUTS = ["rollouts", "rollouts/remote", "rollouts/vllm"]  # in import order too
MATHEMATICS = {"functional", "rewards", "advantages", "filters", "losses"}
WITH_LIGHTNING = {"modules", "callbacks", "strategies", "cli", "data/datamodule", "tools/preflight/sampler"}
LAZY = {
    "cli/lightning_cli",
    "cli/names",
    "cli/help",
}  # they look up the public names
MAX_FILE, MAX_FUNCTION = 250, 50


def module_of(path: Path) -> str:
    """`losses/nrt` for `nrt_lightning/losses/nrt.py`, `losses` for its `__init__.py`, and "" for the package's."""
    return str(path.relative_to(PACKAGE).with_suffix("")).removesuffix("__init__").rstrip("/")


MODULES = {module_of(path): path for path in FILES}


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


def module_named(name: str) -> str | None:
    """The module of this package that a dotted name is in; None for names of other packages.

    >>> module_named("nrt_lightning.losses.nrt.NRTLoss"), module_named("nrt_lightning.Policy"), module_named("torch.nn")
    ('losses/nrt', '', None)
    """
    root, *rest = name.split(".")
    if root != PACKAGE.name:
        return None
    while rest and "/".join(rest) not in MODULES:
        rest.pop()
    return "/".join(rest)


def imports_of(module: str) -> set[str]:
    """The modules of this package that a module imports, for types alone too."""
    found = {module_named(name) for name in imported(MODULES[module].read_text())}
    return {name for name in found if name is not None} - {module}


def part_of(module: str) -> str:
    """The part of ORDER that a module belongs to; "" for the package's own `__init__`."""
    while module and module not in LEVELS:
        module = module.rpartition("/")[0]
    return module


def allowed(module: str, target: str) -> bool:
    """Whether a module may import another."""
    if not module or (not target and module in LAZY):
        return True
    if not target:
        return False
    mine, theirs = part_of(module), part_of(target)
    if mine != theirs:
        return LEVELS[theirs] < LEVELS[mine]
    if mine == "rollouts" and module != "rollouts":
        inside = [name if name in INSIDE_ROLLOUTS else name.rpartition("/")[0] for name in (target, module)]
        return INSIDE_ROLLOUTS.index(inside[0]) <= INSIDE_ROLLOUTS.index(inside[1])
    return True


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module: str) -> None:
    wrong = sorted(target for target in imports_of(module) if not allowed(module, target))
    assert not wrong, f"{module} imports {wrong}"


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import one another in a circle; none where there is no circle.

    >>> circle({"a": {"b"}, "b": set()}), circle({"a": {"b"}, "b": {"c"}, "c": {"b"}})
    ([], ['b', 'c'])
    """
    left = dict(graph)
    while free := [module for module, targets in left.items() if not targets & left.keys()]:
        left = {module: targets for module, targets in left.items() if module not in free}
    while users := [module for module in left if not any(module in targets for targets in left.values())]:
        left = {module: targets for module, targets in left.items() if module not in users}
    return sorted(left)


def test_no_files_import_one_another_in_a_circle() -> None:
    assert circle({module: imports_of(module) for module in MODULES if module}) == []


def test_contributing_shows_this_order() -> None:
    shown = re.search(
        r"^```\n(errors .*?)^```", (PACKAGE.parent / "CONTRIBUTING.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert shown is not None
    assert shown[1].splitlines() == [line.strip() for line in ORDER.strip().splitlines()]


def test_every_module_has_a_place_in_the_order() -> None:
    assert not [module for module in MODULES if module and not part_of(module)]
    assert len(list(PACKAGE.glob("*.py"))) <= 5


@pytest.mark.parametrize("module", MODULES)
def test_no_import_is_relative(module: str) -> None:
    assert not [name for name in imported(MODULES[module].read_text()) if name.startswith(".")]


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) in MATHEMATICS])
def test_mathematics_imports_torch_alone(module: str) -> None:
    roots = {name.split(".")[0] for name in imported(MODULES[module].read_text())} - set(sys.stdlib_module_names)
    assert roots <= {"torch", PACKAGE.name}


@pytest.mark.parametrize("module", MODULES)
def test_lightning_is_imported_at_the_edge_only(module: str) -> None:
    roots = {name.split(".")[0] for name in imported(MODULES[module].read_text())}
    if roots & {"lightning", "pytorch_lightning"}:
        assert part_of(module) in WITH_LIGHTNING or module in WITH_LIGHTNING
    if "torchmetrics" in roots:
        assert part_of(module) in {"metrics", "evaluation"}


@pytest.mark.parametrize("module", MODULES)
def test_files_and_functions_are_short(module: str) -> None:
    source = MODULES[module].read_text()
    assert source.count("\n") <= MAX_FILE
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    bodies = {f.name: f.body[1:] if ast.get_docstring(f) else f.body for f in functions}
    long = {name: body[-1].end_lineno - body[0].lineno + 1 for name, body in bodies.items() if body}  # type: ignore[operator]
    assert not {name: lines for name, lines in long.items() if lines > MAX_FUNCTION}


@pytest.mark.parametrize(
    ("module", "target", "fine"),
    [
        ("models/scoring/best", "rollouts/engine", False),
        ("models/policy/policy", "models/sharding/base", True),
        ("models/sharding/base", "models/policy/policy", False),
        ("rollouts/transformers_engine", "models/policy/policy", True),
        ("rollouts/remote/base", "rollouts/vllm/sync", False),
        ("rollouts/vllm/sync", "rollouts/remote/base", True),
        ("functional/groups", "rewards/prob", False),
        ("rewards/prob", "losses/nrt", False),
        ("losses/nrt", "functional/masking", True),
        ("callbacks/results", "modules/nrt", False),
        ("data/encoding", "", False),
        ("cli/lightning_cli", "", True),
    ],
)
def test_the_rules_tell_right_from_wrong(module: str, target: str, fine: bool) -> None:
    assert allowed(module, target) == fine
