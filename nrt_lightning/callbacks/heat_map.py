"""The answer heat map: how much likelier a trace makes each token of the answer, over training."""

from __future__ import annotations

import importlib.util
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from typing_extensions import override

from nrt_lightning.callbacks.run_folder import begins, leaves_nothing
from nrt_lightning.callbacks.run_lines import log_folder, thinned
from nrt_lightning.callbacks.samples.heat_map_figure import draw, write
from nrt_lightning.callbacks.samples.records import Record
from nrt_lightning.callbacks.samples.val_samples import ValSamples
from nrt_lightning.callbacks.step_axis import axis_of, steps_taken
from nrt_lightning.errors import InputError
from nrt_lightning.functional import check_at_least

NAME = "answer_heat_map.png"
DRAWN = {4**power for power in range(1, 16)}  # validations: a picture costs a few tenths of a second


class AnswerHeatMap(ValSamples):
    """Draws, for some validation rows, each token of the reference answer colored by log c_i - log b_i.

    Blue tokens are likelier after the policy's greedy trace than after the empty trace, red ones less likely. One line
    is one validation, with the trace beside it; the first line shows how hard each token is without a trace. The
    picture is drawn after the validations 4, 16, 64 and so on, and at the end of training. It is
    `answer_heat_map.png` in the folder of the run's log, and goes to TensorBoard (IMAGES) and Weights & Biases. Modules
    without traces draw nothing. Characters that matplotlib's font lacks are boxes.

    Args:
        rows: validation rows, the first ones.
        max_looks: validations that are shown, evenly over the run.

    Raises:
        InputError: matplotlib is not installed.

    Example:
        >>> AnswerHeatMap(rows=2).max_looks
        12
    """

    def __init__(self, rows: int = 3, max_looks: int = 12) -> None:
        check_at_least("AnswerHeatMap.rows", rows, 1)
        check_at_least("AnswerHeatMap.max_looks", max_looks, 2)
        super().__init__(rows)
        self.max_looks = max_looks
        self.looks: list[Record] = []  # rows over time
        self.count = 0  # validations so far
        self.drawn = 0  # how many there were at the last picture

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and importlib.util.find_spec("matplotlib") is None:
            raise InputError(
                "AnswerHeatMap draws with matplotlib, which is not installed: pip install 'nrt-lightning[plot]', or "
                "remove it from trainer.callbacks."
            )
        if begins(trainer, stage):
            self.looks, self.count, self.drawn = [], 0, 0

    @override
    def on_val_records(self, trainer: Trainer, records: list[Record]) -> None:
        step, shown = steps_taken(trainer), [record for record in records if record["baseline_logprobs"] is not None]
        if not shown or not trainer.is_global_zero:
            return
        if self.looks and self.looks[-1]["step"] >= step:  # done again after a resume
            return
        self.looks += [{"step": step} | record for record in shown]
        if len({look["step"] for look in self.looks}) > 2 * self.max_looks:
            self.looks = thinned(self.looks, self.max_looks)
        self.count += 1
        if self.count in DRAWN:
            self.show(trainer)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.count > self.drawn:
            self.show(trainer)

    def show(self, trainer: Trainer) -> None:
        """Draw the picture and give it to the loggers."""
        if leaves_nothing(trainer) or not trainer.is_global_zero:
            return
        self.drawn = self.count
        steps = len({look["step"] for look in self.looks})
        looks = thinned(self.looks, self.max_looks - 1) if steps > self.max_looks else self.looks
        figure = draw(looks)
        path = log_folder(trainer) / NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels, step = write(figure, path), axis_of(trainer).step(trainer)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("answer_heat_map", pixels, step, dataformats="HWC")
            elif isinstance(logger, WandbLogger):
                logger.log_image("answer_heat_map", [pixels], step)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"looks": self.looks, "count": self.count, "drawn": self.drawn}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.looks, self.count, self.drawn = state_dict["looks"], state_dict["count"], state_dict["drawn"]
