"""What TensorBoard and Weights & Biases show first: values grouped by question, charts, and the figures of a test."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from typing_extensions import override

from nrt_lightning.callbacks.run_folder import leaves_nothing
from nrt_lightning.callbacks.run_history import RunHistory
from nrt_lightning.callbacks.step_axis import axis_of
from nrt_lightning.callbacks.wandb_panels import log_panels
from nrt_lightning.metrics.logged_values import CHARTS, GROUPS, TESTED, describe

FOLDERS = {group: f"{number}_{group}" for number, group in enumerate(GROUPS, start=1)}
OF_TRACES = ("val/exact_match_forced", "val/checked_match_forced")  # without traces equal to those without `_forced`


def grouped_name(name: str) -> str:
    """A logged name with its group in front, so that dashboards sort the groups.

    >>> grouped_name("val/exact_match"), grouped_name("train/grad_norm"), grouped_name("lr-AdamW")
    ('1_learns/val/exact_match', '3_healthy/train/grad_norm', 'lr-AdamW')
    """
    value = describe(name)
    return name if value is None else f"{FOLDERS[value.group]}/{name}"


class Dashboard(Callback):
    """Orders what TensorBoard and Weights & Biases show by what a person asks.

    - Names get a group in front: `1_learns/`, `2_gains/`, `3_healthy/`, `4_speed/` and `5_details/`. Other loggers,
      monitors and files keep the plain names; in W&B the summary of the run has them too.
    - CUSTOM SCALARS in TensorBoard has charts of values that belong together, in the same groups; W&B has them as
      custom charts when training ends.
    - The figures of a test are a table (TEXT in TensorBoard; table and summary in W&B), not charts of one dot.
    - The epoch is left out in runs of one epoch, and of modules without traces what would be shown twice.
    - Steps are those of `StepAxis`, in every logger.

    `NRTModule` and `SFTModule` add this callback.

    Args:
        grouped: False keeps the plain names.

    Example:
        >>> Dashboard(grouped=False).shown("val/exact_match")
        'val/exact_match'
    """

    def __init__(self, *, grouped: bool = True) -> None:
        self.grouped = grouped
        self.seen: set[str] = set()  # plain names that have been logged
        self.charted: list[str] = []  # titles of the charts in TensorBoard's layout

    def shown(self, name: str) -> str:
        """The name that dashboards show."""
        return grouped_name(name) if self.grouped else name

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, RunHistory):
                continue
            if not isinstance(logger.log_metrics, ShownMetrics):
                logger.log_metrics = ShownMetrics(logger)  # type: ignore[method-assign]
            logger.log_metrics.use(self, trainer)
        if not trainer.is_global_zero or leaves_nothing(trainer):
            return
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                for name in ("val/exact_match", "val/confidence", "train/gain"):
                    define = logger.experiment.define_metric
                    define(self.shown(name), step_metric="trainer/global_step", step_sync=True, summary="last,max")

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.write_layout(trainer)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.write_layout(trainer)
        for logger in trainer.loggers if trainer.is_global_zero else []:
            if isinstance(logger, WandbLogger) and not leaves_nothing(trainer):
                logger.experiment.summary.update(figures_of(trainer, "val/"))
                log_panels(trainer, logger, self.seen)

    def write_layout(self, trainer: Trainer) -> None:
        """Write TensorBoard's layout of charts, if it has changed."""
        layout = self.layout()
        titles = [title for charts in layout.values() for title in charts]
        if titles == self.charted or not trainer.is_global_zero or leaves_nothing(trainer):
            return
        self.charted = titles
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_custom_scalars(layout)

    def layout(self) -> dict[str, dict[str, list[Any]]]:
        """Charts of values that have been logged, by group. A chart is the same in all runs that have it."""
        found: dict[str, dict[str, list[Any]]] = {}
        for group, charts in CHARTS.items():
            for title, names in charts.items():
                if self.seen.intersection(names):
                    tags = [re.escape(self.shown(name)) + "$" for name in names]
                    found.setdefault(GROUPS[group], {})[title] = ["Multiline", tags]
        return found

    @override
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        figures = figures_of(trainer, TESTED)
        if not figures or not trainer.is_global_zero or leaves_nothing(trainer):
            return
        step = axis_of(trainer).step(trainer)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("test", figures_table(figures), step)
            elif isinstance(logger, WandbLogger):
                logger.experiment.summary.update(figures)
                logger.log_table("test", ["figure", "value"], [[name, value] for name, value in figures.items()])


class ShownMetrics:
    """Logs metrics as a dashboard shows them. It takes the place of a logger's `log_metrics`.

    Args:
        logger: whose `log_metrics` is replaced.
    """

    def __init__(self, logger: Logger) -> None:
        self.log = logger.log_metrics
        self.is_dashboard = isinstance(logger, TensorBoardLogger | WandbLogger)
        self.dashboard: Dashboard | None = None
        self.trainer: Any = None

    def use(self, dashboard: Dashboard, trainer: Trainer) -> None:
        """Show metrics as this dashboard does."""
        self.dashboard, self.trainer = dashboard, trainer

    def __call__(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log metrics."""
        assert self.dashboard is not None
        self.dashboard.seen.update(metrics)
        values = dict(metrics)
        if self.is_dashboard:
            left_out = hidden(self.trainer, values)
            values = {self.dashboard.shown(k): v for k, v in values.items() if k not in left_out}
        if values:
            self.log(values, axis_of(self.trainer).step(self.trainer, step))


def hidden(trainer: Any, names: Iterable[str]) -> set[str]:
    """Names that dashboards leave out."""
    left_out = {name for name in names if name.startswith(TESTED)}
    if trainer.max_epochs == 1 or set(names) <= left_out | {"epoch"}:
        left_out.add("epoch")
    return left_out if hasattr(trainer.lightning_module, "method") else left_out | {*OF_TRACES}


def shown_name(trainer: Any, name: str) -> str:
    """The name under which TensorBoard and W&B have a value."""
    dashboard = next((callback for callback in trainer.callbacks if isinstance(callback, Dashboard)), None)
    return name if dashboard is None else dashboard.shown(name)


def figures_of(trainer: Any, prefix: str) -> dict[str, float]:
    """The newest values under a prefix, with their names."""
    found = trainer.callback_metrics.items()
    return {name: float(value) for name, value in found if name.startswith(prefix) and value.numel() == 1}


def figures_table(figures: dict[str, float]) -> str:
    """A Markdown table.

    >>> print(figures_table({"test/exact_match": 0.5, "test/mine": 2.0}))
    | figure | value |
    |---|---:|
    | exact match | 0.5 |
    | mine | 2 |
    """
    titles = {name: value.title if (value := describe(name)) else name for name in figures}
    titles = {name: title.removesuffix(", validation").removesuffix(" (validation)") for name, title in titles.items()}
    rows = [f"| {titles[name]} | {value:.4g} |" for name, value in figures.items()]
    return "\n".join(["| figure | value |", "|---|---:|", *rows])
