"""The scalars of a run as JSON lines beside any logger, for reports."""

from __future__ import annotations

import json
import math
import platform
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from nrt_lightning.callbacks.run_lines import Line, RunLines, log_folder, plain, thinned
from nrt_lightning.callbacks.step_axis import axis_of
from nrt_lightning.errors import InputError
from nrt_lightning.files import replaced, set_aside
from nrt_lightning.functional import check_at_least

FORMAT = 1
NAME, RUN = "metrics.jsonl", "run.json"
PACKAGES = ("nrt-lightning", "torch", "lightning", "transformers")
EVALUATED = ("val/", "test/")
COUNTED = frozenset(("step", "prompts", "rollouts", "seconds", "epoch"))  # in a line, besides what is logged


class RunHistory(Logger):
    """Writes what is logged to `metrics.jsonl`, one JSON object a time, and the settings of the run to `run.json`.

    Each line has `step` (optimizer steps taken), `prompts`, `rollouts`, `seconds`, `epoch` and the logged values by
    name; a value that is not finite is null. A resumed run goes on in the file, and a new run in the same folder
    renames it to `metrics-1.jsonl`. Long runs are thinned evenly. A run that has any logger gets this one too.

    Args:
        folder: of the files; null for the folder of the run's log.
        max_rows: lines of training that are kept at most, and as many of validations.

    Example:
        >>> RunHistory("runs/mine").max_rows
        4000
    """

    def __init__(self, folder: str | None = None, max_rows: int = 4000) -> None:
        super().__init__()
        check_at_least("RunHistory.max_rows", max_rows, 10)
        self.folder = folder
        self.max_rows = max_rows
        self.trainer: Any = None
        self.counts = {True: 0, False: 0}  # lines in the file: of validations, of training
        self.there: set[tuple[int, frozenset[str]]] = set()  # step and names of lines that a resumed run logs again

    def attach(self, trainer: Any) -> None:
        """Let this logger know its trainer."""
        self.trainer = trainer

    @property
    def file(self) -> RunLines:
        """The file of the scalars."""
        return RunLines(self.directory / NAME)

    @property
    def directory(self) -> Path:
        """The folder of the files; right on rank zero."""
        if self.folder is not None:
            return Path(self.folder)
        if self.trainer is None:
            raise InputError("RunHistory has no folder: give it one, or use it with NRTModule or SFTModule.")
        return log_folder(self.trainer)

    @property
    @override
    def name(self) -> str:
        return "history"

    @property
    @override
    def version(self) -> str:
        return ""

    @property
    @override
    def save_dir(self) -> str | None:
        return self.folder

    @override
    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        trainer, values = self.trainer, dict(metrics)
        if trainer is None:
            line: Line = {"step": step}
        else:
            epoch = values.pop("epoch", trainer.current_epoch)
            line = axis_of(trainer).counts(trainer) | {"epoch": int(epoch)}
        fitting = trainer is not None and trainer.state.fn == "fit"
        if not values or (fitting and (line["step"], frozenset(values)) in self.there):
            return
        self.file.add([line | {name: rounded(value) for name, value in values.items()}])
        kind = evaluated(values)
        self.counts[kind] += 1
        if self.counts[kind] > self.max_rows:
            self.thin(kind)

    def thin(self, kind: bool) -> None:
        """Leave about half of the steps of one kind of line."""
        lines = self.file.read()
        kept = thinned([line for line in lines if evaluated(line) == kind], self.max_rows // 2)
        ids = {id(line) for line in kept}
        self.file.replace(line for line in lines if evaluated(line) != kind or id(line) in ids)
        self.counts[kind] = len(kept)

    @override
    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Write `run.json`. A test or validation after the fit leaves that of the fit."""
        trainer, path = self.trainer, self.directory / RUN
        if path.exists() and trainer is not None and trainer.state.fn != "fit":
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        module = None if trainer is None else trainer.lightning_module
        found = {
            "format": FORMAT,
            "name": self.directory.absolute().name,
            "module": type(module).__name__,
            "traces": hasattr(module, "method"),
            "settings": dict(params),
            "environment": environment(trainer),
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        write_object(path, found)

    @rank_zero_only
    def note_end(self, trainer: Any, *, ended: bool) -> None:
        """Note in `run.json` how many steps training is to take and, at its end, how many it took.

        Args:
            trainer: in training.
            ended: training has ended, and was not killed.
        """
        path, planned = self.directory / RUN, trainer.estimated_stepping_batches
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        found["steps"] = int(planned) if math.isfinite(planned) and planned > 0 else None
        found["ended"] = {"step": trainer.global_step} if ended else None
        write_object(path, found)

    def begin(self) -> None:
        """Set the file of another run aside."""
        set_aside(self.file.path)
        self.counts, self.there = {True: 0, False: 0}, set()

    def go_back(self, step: int, last: dict[str, float], before: Path | None, *, validate: bool) -> None:
        """Leave the lines from before a checkpoint, and add the last one if it is missing.

        Args:
            step: optimizer steps of the checkpoint.
            last: of `kept_metrics.unlogged`, as the checkpoint has it.
            before: the file that the run has written to.
            validate: the validation after the checkpoint is done again.
        """

        again = False

        def wanted(line: Line) -> bool:
            nonlocal again  # for what follows the validation, too
            number = line.get("step")
            again |= validate and number == step and any(name.startswith("val/") for name in line)
            return isinstance(number, int) and number <= step and not again

        lines = self.file.go_back(wanted, before)
        self.counts = {kind: sum(evaluated(line) == kind for line in lines) for kind in (True, False)}
        names = [frozenset(line) - COUNTED for line in lines if line["step"] == step]
        if set(last) - COUNTED - frozenset().union(*names):
            self.log_metrics(last, step)
        self.there = {(step, found) for found in names}  # a monitor logs before a step, a loop after the save


def write_object(path: Path, found: dict[str, Any]) -> None:
    """Write a JSON file, replaced at once."""
    with replaced(path) as file:
        file.write(json.dumps(plain(found), ensure_ascii=False, indent=1, default=str) + "\n")


def evaluated(line: Line) -> bool:
    """True for a line of a validation or test."""
    return any(name.startswith(EVALUATED) for name in line)


def rounded(value: Any) -> Any:
    """A number with the digits that a float32 has.

    >>> rounded(0.10000000149011612), rounded(3)
    (0.1, 3)
    """
    return float(f"{value:.7g}") if isinstance(value, float) else value


def environment(trainer: Any) -> dict[str, Any]:
    """Versions and device of a run."""
    found: dict[str, Any] = {"python": platform.python_version(), "system": platform.platform(terse=True)}
    for name in PACKAGES:
        try:
            found[name.replace("-", "_")] = version(name)
        except PackageNotFoundError:
            found[name.replace("-", "_")] = "unknown"
    if trainer is not None:
        found |= {"device": str(trainer.strategy.root_device), "processes": trainer.world_size}
    return found


def add_history(trainer: Any) -> None:
    """Give a trainer that has loggers a `RunHistory`, unless it has one. Nothing is written under `fast_dev_run`."""
    if trainer.fast_dev_run or not trainer.loggers:
        return
    if not any(isinstance(logger, RunHistory) for logger in trainer.loggers):
        trainer.loggers = [*trainer.loggers, RunHistory()]
    for logger in histories(trainer):
        logger.attach(trainer)


def histories(trainer: Any) -> list[RunHistory]:
    """The loggers of a trainer that are `RunHistory`."""
    return [logger for logger in trainer.loggers if isinstance(logger, RunHistory)]
