"""The compared methods, bases and seeds, and the command of each run."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from nrt_lightning.configs import resolve
from nrt_lightning.errors import InputError, nearest
from nrt_lightning.tools.comparison.figures import read_curves, read_figures
from nrt_lightning.tools.comparison.held_out import check_test_data
from nrt_lightning.tools.comparison.inputs import config_texts, named_files


@dataclass(frozen=True)
class Run:
    """A run of one method from one base with one seed."""

    name: str
    method: str
    base: str  # empty if the configs name the policy
    seed: int
    directory: Path
    arguments: tuple[str, ...]  # of `nrt-lightning`, without the run's config
    callbacks: list[dict[str, Any]]  # besides the one that writes its figures

    @property
    def config(self) -> Path:
        """The run's config, which is read last."""
        return self.directory / "run.yaml"

    @property
    def results(self) -> Path:
        """The figures that a finished run writes."""
        return self.directory / "results.json"

    @property
    def command(self) -> list[str]:
        """The whole command."""
        return [sys.executable, "-m", "nrt_lightning", *self.arguments, "--config", str(self.config)]

    @property
    def fingerprint(self) -> str:
        """Digest of the command, the callbacks and the contents of the configs and of all files that these name."""
        content: list[Any] = [self.arguments, self.seed, self.callbacks, config_texts(self.arguments)]
        if files := named_files(self.arguments, self.base):
            content.append(files)
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @property
    def finished(self) -> bool:
        """True if the run has written its figures.

        Raises:
            InputError: they belong to another command or to other files, they are damaged, or what is in the directory
                is of no run and would be deleted.
        """
        kept = self.directory / "fingerprint"
        if not self.results.exists():
            if not kept.exists() and self.directory.exists() and any(self.directory.iterdir()):
                raise InputError(f"directory {self.directory} holds files of no run. Move them, or give another one.")
            return False
        if not kept.exists() or kept.read_bytes() != self.fingerprint.encode():
            raise InputError(
                f"directory {self.directory} holds a run of other configs, files or options. Remove it, or give "
                "another one."
            )
        read_figures(self.results, self.name)
        read_curves(self.directory / "metrics.csv")
        return True


@dataclass
class Comparison:
    """Methods that are run with the same seeds, rows and bases.

    Every run is a process of `nrt-lightning fit` with `configs`, then the method's configs, then `options`. Progress
    bars, checkpoints, loggers and callbacks in the configs are removed; curves are written to a CSV file.

    Args:
        configs: of the base and the data, read first.
        methods: configs and options by method: paths of YAML files, `nrt:NAME`, or `--option=value`.
        seeds: of sampling and of the row order.
        bases: values of `policy.model`, each run with all methods and seeds; the one in the configs by default.
        options: `--option=value` for all runs, read last.
        callbacks: more callbacks for every run, as `class_path` and `init_args`.
        without_callbacks: methods that get no `callbacks`, for instance because they sample no traces.
        leave_out: methods that are not run.
        directory: where runs, tables and the plot are written.

    Raises:
        InputError: a config does not exist, there is nothing to run, or a method has no test data.

    Example:
        >>> comparison = Comparison([], {"gm": ["--model.aggregator=GeometricMean"]}, seeds=[0, 1])
        >>> [run.name for run in comparison.runs]
        ['gm-0', 'gm-1']
    """

    configs: list[str]
    methods: dict[str, list[str]]
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    bases: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    callbacks: list[dict[str, Any]] = field(default_factory=list)
    without_callbacks: list[str] = field(default_factory=list)
    leave_out: list[str] = field(default_factory=list)
    directory: str = "runs/comparison"

    def __post_init__(self) -> None:
        for name in ("methods", "seeds", "bases"):
            if not getattr(self, name) and name != "bases":
                raise InputError(f"{name} is empty: there is nothing to run. Give at least one.")
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise InputError(f"{name}={getattr(self, name)} has a duplicate. Remove it.")
        for path in self.configs:
            check_config(path, "configs")
        for name, words in self.methods.items():
            for word in words:
                if not word.startswith("--"):
                    check_config(word, f"methods.{name}")
        check_names(self.methods, self.bases)
        for field_name in ("without_callbacks", "leave_out"):
            for name in getattr(self, field_name):
                if name not in self.methods:
                    raise InputError(f"{field_name}: {name!r} is not one of the methods.{nearest(name, self.methods)}")
        if not set(self.methods) - set(self.leave_out):
            raise InputError("leave_out has all methods: there is nothing to run. Keep at least one.")
        wrong = [option for option in self.options if not option.startswith("--") or "=" not in option]
        if wrong:
            raise InputError(f"options: {wrong[0]!r} is not an option. Write it as --option=value.")
        for name in set(self.methods) - set(self.leave_out):
            check_test_data(name, [*self.configs, *self.methods[name], *self.options])

    @property
    def runs(self) -> list[Run]:
        """All runs, seed by seed, so that early results cover all methods."""
        return [
            self.run(method, base, seed)
            for seed in self.seeds
            for base in self.bases or [""]
            for method in self.methods
            if method not in self.leave_out
        ]

    def run(self, method: str, base: str, seed: int) -> Run:
        """The run of a method, base and seed."""
        words = [*self.configs, *self.methods[method], *self.options]
        if base:
            words.append(f"--model.policy.model={base}")
        arguments = ["fit"]
        for word in words:
            arguments += [word] if word.startswith("--") else ["--config", word]
        name = "-".join(part for part in (method, short(base), str(seed)) if part)
        callbacks = [] if method in self.without_callbacks else self.callbacks
        return Run(name, method, base, seed, Path(self.directory).expanduser() / name, tuple(arguments), callbacks)

    def config_of(self, run: Run) -> str:
        """The config of a run as YAML: its seed, directory and output."""
        results = {"path": str(run.results), "name": run.name}
        curves = {"save_dir": str(run.directory), "name": "", "version": ""}
        trainer = {
            "default_root_dir": str(run.directory),
            "logger": {"class_path": "CSVLogger", "init_args": curves},
            "callbacks": [{"class_path": "nrt_lightning.ResultsFile", "init_args": results}, *run.callbacks],
            "enable_progress_bar": False,
            "enable_checkpointing": False,
            "enable_model_summary": False,
        }
        settings = {"seed_everything": run.seed, "trainer": trainer, "data": {"init_args": {"seed": run.seed}}}
        return yaml.safe_dump(settings, sort_keys=False)


def short(base: str) -> str:
    """A base's name in directories and tables.

    >>> short("embedded:registers-base"), short("./runs/reports-base-1/model/")
    ('registers-base', 'runs_reports-base-1_model')
    """
    return base.removeprefix("embedded:").strip("./").replace("/", "_")


def check_names(methods: Iterable[str], bases: Sequence[str]) -> None:
    """Refuse methods and bases whose runs would share a directory, or a row of the table.

    >>> check_names(["gm"], ["x/y", "x_y"])
    Traceback (most recent call last):
    nrt_lightning.errors.InputError: bases: 'x/y' and 'x_y' would both be called 'x_y' in directories and tables. \
Compare them in two directories, or give a link of another name.
    """
    for name in methods:
        if not name or name != Path(name).name or name in (".", ".."):
            raise InputError(f"methods.{name}: a name of a directory is made of it. Write it without /, . and ..")
    seen: dict[str, str] = {}
    for base in bases:
        if (other := seen.setdefault(short(base), base)) != base:
            raise InputError(
                f"bases: {other!r} and {base!r} would both be called {short(base)!r} in directories and tables. "
                "Compare them in two directories, or give a link of another name."
            )
    of_both: dict[str, tuple[str, str]] = {}
    for method in methods:
        for base in bases:
            if (first := of_both.setdefault(f"{method}-{short(base)}", (method, base))) != (method, base):
                raise InputError(
                    f"methods.{first[0]} from {first[1]!r} and methods.{method} from {base!r} would share a directory. "
                    "Give a method another name."
                )


def check_config(path: str, name: str) -> None:
    """Check that a config exists."""
    path = resolve(path, name)
    if not path.endswith((".yaml", ".yml")):
        raise InputError(f"{name}: {path!r} is neither a .yaml file nor an --option=value.")
    if not Path(path).is_file():
        raise InputError(f"{name}: {path!r}: no such file. Paths are relative to the current directory.")
