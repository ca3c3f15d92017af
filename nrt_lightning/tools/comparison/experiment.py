"""What is compared: methods, bases and seeds, and the command of each run."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from nrt_lightning.errors import InputError, nearest


@dataclass(frozen=True)
class Run:
    """One method from one base with one seed."""

    name: str
    method: str
    base: str  # empty where the configs name the policy
    seed: int
    directory: Path
    arguments: tuple[str, ...]  # of `nrt-lightning`, without the run's own config
    callbacks: list[dict[str, Any]]  # beside the one that writes its figures

    @property
    def config(self) -> Path:
        """The run's own config, which comes last."""
        return self.directory / "run.yaml"

    @property
    def results(self) -> Path:
        """What it leaves when it has finished."""
        return self.directory / "results.json"

    @property
    def command(self) -> list[str]:
        """The whole command."""
        return [sys.executable, "-m", "nrt_lightning", *self.arguments, "--config", str(self.config)]

    @property
    def fingerprint(self) -> str:
        """Of the command, its callbacks and what its configs hold."""
        configs = [word for before, word in pairwise(self.arguments) if before == "--config"]
        texts = [Path(path).read_text() for path in configs]
        return hashlib.sha256(json.dumps([self.arguments, self.seed, self.callbacks, texts]).encode()).hexdigest()

    @property
    def finished(self) -> bool:
        """Whether its figures are there.

        Raises:
            InputError: they are those of another command or of other configs.
        """
        if not self.results.exists():
            return False
        kept = self.directory / "fingerprint"
        if not kept.exists() or kept.read_text() != self.fingerprint:
            raise InputError(
                f"{self.directory} holds a run of other configs or options. Remove it, or give another directory."
            )
        return True


@dataclass
class Comparison:
    """Methods that are run with the same seeds on the same rows from the same bases.

    Every run is `nrt-lightning fit` with the configs, then the method's, then the options, in a process of its own.
    Progress bars, checkpoints, loggers and callbacks that the configs name are left out; curves go to a CSV file.

    Args:
        configs: of the base and the data, read first.
        methods: by name, configs and options of each: paths of YAML files, or `--option=value`.
        seeds: of sampling and of the order of the rows.
        bases: values of `policy.model`, each with all methods and seeds; the one in the configs by default.
        options: `--option=value` for all runs, read last.
        callbacks: further callbacks of every run, as `class_path` and `init_args`.
        without_callbacks: methods that get none of these, for instance because they write no traces.
        leave_out: methods that are not run.
        directory: where runs, tables and the plot go.

    Raises:
        InputError: a config is not there, or nothing would run.

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
                raise InputError(f"{name} is empty: nothing would run. Give at least one.")
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise InputError(f"{name}={getattr(self, name)} names one twice. Leave it out.")
        for path in self.configs:
            check_config(path, "configs")
        for name, words in self.methods.items():
            for word in words:
                if not word.startswith("--"):
                    check_config(word, f"methods.{name}")
        for field_name in ("without_callbacks", "leave_out"):
            for name in getattr(self, field_name):
                if name not in self.methods:
                    raise InputError(f"{field_name}: {name!r} is none of the methods.{nearest(name, self.methods)}")
        if not set(self.methods) - set(self.leave_out):
            raise InputError("leave_out names all methods: nothing would run. Keep at least one.")
        wrong = [option for option in self.options if not option.startswith("--") or "=" not in option]
        if wrong:
            raise InputError(f"options: {wrong[0]!r} is no option. Write it as --option=value.")

    @property
    def runs(self) -> list[Run]:
        """All runs; every method once before any a second time, so that an early look compares them."""
        return [
            self.run(method, base, seed)
            for seed in self.seeds
            for base in self.bases or [""]
            for method in self.methods
            if method not in self.leave_out
        ]

    def run(self, method: str, base: str, seed: int) -> Run:
        """One of them."""
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
        """A run's own config, as YAML: seed, place and what it writes."""
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


def check_config(path: str, name: str) -> None:
    """Refuse a config that is not there."""
    if not path.endswith((".yaml", ".yml")):
        raise InputError(f"{name}: {path!r} is neither a .yaml file nor an --option=value.")
    if not Path(path).is_file():
        raise InputError(f"{name}: {path!r} is not there. Paths are looked up from where the command is given.")
