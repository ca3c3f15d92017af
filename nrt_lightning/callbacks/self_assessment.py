"""Whether the policy knows what it knows, during training."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from typing_extensions import override

from nrt_lightning.callbacks.looks import LookingCallback, Looks
from nrt_lightning.callbacks.run_folder import leaves_nothing
from nrt_lightning.callbacks.run_lines import Place, RunLines, log_folder, place_of, written_before
from nrt_lightning.callbacks.step_axis import steps_taken
from nrt_lightning.errors import InputError
from nrt_lightning.evaluation.self_assessment import assess
from nrt_lightning.files import set_aside
from nrt_lightning.metrics.self_assessment import self_assessment
from nrt_lightning.randomness import counter_seed, run_seed
from nrt_lightning.strategies import gather_in_order
from nrt_lightning.structures import Sampling
from nrt_lightning.training.checks import method_of

FILE = "self_assessment.jsonl"


class SelfAssessment(LookingCallback):
    """Logs in validation how well the policy knows whether it is right.

    For some validation rows it samples K traces and an answer after each. The agreement of a row is the fraction of its
    answers that are the most frequent one, its confidence the mean probability of its answers. Both are held against
    whether the most frequent answer is right, under `self_assessment/`; `nrt_lightning.metrics.self_assessment` says
    what each figure means. The rows are added to `self_assessment.jsonl` in the folder of the
    run's log, which `nrt-lightning report` draws calibration and risk-coverage curves from.

    A measurement costs `rows` * K traces and answers, without a backward pass.

    Args:
        every_n_steps: optimizer steps between two measurements at least; a measurement is part of a validation.
        rows: validation rows looked at, the first ones of all processes together.
        sampling: how traces and answers are drawn; null for the module's own `sampling`.

    Raises:
        InputError: the module has no traces, or the settings leave nothing to compare.

    Example:
        >>> SelfAssessment().rows
        16
    """

    def __init__(self, every_n_steps: int = 50, rows: int = 16, sampling: Sampling | None = None) -> None:
        self.looks = Looks(type(self).__name__, every_n_steps, rows)
        self.rows, self.sampling = rows, sampling
        self.looking = False
        self.seen: list[dict[str, Any]] = []  # rows of this measurement and process
        self.place: Place | None = None  # of the file, in a checkpoint

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage not in ("fit", "validate"):
            return
        sampling = self.sampling or method_of(pl_module, type(self).__name__).sampling
        if sampling.group_size < 2 or sampling.temperature == 0:
            raise InputError(
                f"SelfAssessment compares sampled answers: group_size is {sampling.group_size} and temperature "
                f"{sampling.temperature:g}. Give it a `sampling` with group_size of 2 or more and temperature above 0."
            )

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or leaves_nothing(trainer):
            return
        file, last = self.file(trainer), -1 if self.looks.last is None else self.looks.last
        before, self.place = written_before(self.place, trainer), place_of(file.path, trainer)
        if trainer.global_step == 0:
            set_aside(file.path)
        else:  # measurements after the checkpoint are done again
            file.go_back(lambda line: isinstance(line.get("step"), int) and line["step"] <= last, before)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See whether a measurement is due."""
        self.seen = []
        self.looking = self.looks.begin(trainer)

    @override
    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Look at the rows of this batch that are due."""
        if (taken := self.looks.take(batch)) is None:
            return
        prompts, counted = taken
        method = method_of(pl_module, type(self).__name__)
        seed = counter_seed(run_seed(), 0, 0, 0, "self-assessment")  # a draw follows from the row
        with trainer.precision_plugin.forward_context():
            found = assess(method, prompts, self.sampling or method.sampling, seed)
        columns = (found.answers, found.agreement.tolist(), found.confidence.tolist(), found.right.tolist())
        for row, counts, answer, agreement, confidence, right in zip(
            prompts.rows, counted.tolist(), *columns, strict=True
        ):
            if counts:
                figures = {"agreement": agreement, "confidence": round(confidence, 6), "right": right}
                self.seen.append({"id": row.id, "answer": answer} | figures)

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the measurement."""
        if not self.looking:
            return
        rows, self.seen = gather_in_order(self.seen), []
        if not rows:
            return
        signals = [torch.tensor([float(row[name]) for row in rows]) for name in ("agreement", "confidence", "right")]
        values = self_assessment(signals[0], signals[1], signals[2] > 0.5)
        same = trainer.world_size > 1  # equal on all processes already; said to Lightning, which would warn
        logged = {f"self_assessment/{name}": value.to(pl_module.device) for name, value in values.items()}
        pl_module.log_dict(logged, sync_dist=same)
        if trainer.is_global_zero and not leaves_nothing(trainer):
            self.file(trainer).add([{"format": 1, "step": steps_taken(trainer), "rows": rows}])

    def file(self, trainer: Trainer) -> RunLines:
        """The file of the measurements; right on rank zero."""
        return RunLines(log_folder(trainer) / FILE)

    @override
    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"file": self.place}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.place = state_dict["file"]
