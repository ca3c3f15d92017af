"""Samples of traces during training, as text, table and JSON lines."""

from __future__ import annotations

import logging
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from typing_extensions import override

from nrt_lightning.callbacks.run_folder import leaves_nothing
from nrt_lightning.callbacks.run_lines import Place, RunLines, log_folder, place_of, thinned, written_before
from nrt_lightning.callbacks.samples.markdown import block
from nrt_lightning.callbacks.samples.records import Record, train_records
from nrt_lightning.callbacks.samples.table import GrowingTable
from nrt_lightning.callbacks.samples.val_samples import ValSamples
from nrt_lightning.callbacks.step_axis import axis_of
from nrt_lightning.files import set_aside
from nrt_lightning.functional import check_at_least
from nrt_lightning.models.policy.texts import with_rows
from nrt_lightning.structures import Prompts

log = logging.getLogger(__name__)
NAME = "samples.jsonl"


class TraceSamples(ValSamples):
    """Shows traces: the best and the worst of a group in training, and the greedy ones of some validation rows.

    Each has its reward, its gain, the policy's own answer, the confidence in the reference answer, and whether the
    marker was emitted and the trace cut. They go to `samples.jsonl` in the folder of the run's log (one object for each
    question and measurement), to TEXT in TensorBoard, and to one growing table in Weights & Biases. The rows of
    validation are the same at every measurement. Of a module without traces, the answers are shown.

    In training the own answer is decoded greedily after the optimizer step, for the shown traces only. Where another
    process or thread uses the weights it is left out, and the sample says so.

    Args:
        every_n_steps: optimizer steps between two measurements in training. Every validation is a measurement, too.
        questions: questions of a batch that are shown.
        val_rows: validation rows that are shown, the first ones; 0 for none.
        print_samples: also print them on the terminal.
        max_mib: size of the file, in MiB. Above it, measurements are thinned evenly.

    Example:
        >>> TraceSamples(every_n_steps=20).val_rows
        8
    """

    def __init__(
        self, every_n_steps: int = 50, questions: int = 1, val_rows: int = 8, *, print_samples: bool = False,
        max_mib: float = 8.0,
    ) -> None:  # fmt: skip
        check_at_least("TraceSamples.every_n_steps", every_n_steps, 1)
        check_at_least("TraceSamples.questions", questions, 0)
        check_at_least("TraceSamples.val_rows", val_rows, 0)
        check_at_least("TraceSamples.max_mib", max_mib, 0, above=True, infinite=True)
        super().__init__(val_rows)
        self.every_n_steps, self.questions = every_n_steps, questions
        self.print_samples = print_samples
        self.max_mib = max_mib
        self.last = -1
        self.file: RunLines | None = None
        self.place: Place | None = None  # of the file, in a checkpoint
        self.done: set[tuple[int, str]] = set()  # step and split of measurements that the file has
        self.tables: dict[int, GrowingTable] = {}

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.file, self.done, step = None, set(), trainer.global_step
        before, self.place = written_before(self.place, trainer), None
        self.last = step or -1
        if leaves_nothing(trainer) or not trainer.is_global_zero:
            return
        self.file = RunLines(log_folder(trainer) / NAME)
        self.place = place_of(self.file.path, trainer)
        if step == 0:
            set_aside(self.file.path)
            return
        kept = self.file.go_back(lambda line: isinstance(line.get("step"), int) and line["step"] <= step, before)
        self.done = {(line["step"], line["split"]) for line in kept}

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == self.last or step % self.every_n_steps or self.file is None or not self.questions:
            return
        if not isinstance(batch, Prompts) or batch.rollouts is None:
            return
        self.last = step
        if not isinstance(outputs, dict) or "reward" not in outputs:
            log.warning("TraceSamples shows no traces of training: the outputs of training_step have no 'reward'.")
            self.questions = 0
            return
        policy: Any = pl_module.policy
        batch = with_rows(batch, policy)
        self.look(trainer, train_records(trainer, pl_module, batch, outputs, self.questions))

    @override
    def on_val_records(self, trainer: Trainer, records: list[Record]) -> None:
        self.look(trainer, records)

    def look(self, trainer: Trainer, records: list[Record]) -> None:
        """Show the records of one step and split."""
        if not records or self.file is None:
            return
        axis, split = axis_of(trainer), records[0]["split"]
        counts = axis.counts(trainer)
        if (counts["step"], split) in self.done:  # of a validation that is done again after a resume
            return
        records = [{"format": record["format"], **counts, **record} for record in records]
        self.file.add(records)
        self.bound()
        text = "\n\n---\n\n".join(block(record) for record in records)
        for number, logger in enumerate(trainer.loggers):
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text(f"samples/{split}", text, axis.step(trainer))
            elif isinstance(logger, WandbLogger):
                self.tables.setdefault(number, GrowingTable()).add(logger, records, axis.step(trainer))
        if self.print_samples:
            print(f"\nstep {counts['step']}, {split}\n\n{text}")

    def bound(self) -> None:
        """Thin the file if it is too large."""
        assert self.file is not None
        while self.file.path.stat().st_size > self.max_mib * 2**20:
            lines = self.file.read()
            steps = len({line["step"] for line in lines})
            if steps <= 2:
                return
            self.file.replace(thinned(lines, steps // 2))

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"file": self.place}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.place = state_dict["file"]
