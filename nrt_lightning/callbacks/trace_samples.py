"""Logging of sampled traces during training."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from typing_extensions import override

from nrt_lightning.models.policy.texts import with_rows
from nrt_lightning.structures import Prompts

log = logging.getLogger(__name__)


class TraceSamples(Callback):
    """Logs sampled traces as text to TensorBoard and Weights & Biases.

    For other loggers, or none, they are added to `traces.jsonl` in the run's log directory, one line for each trace:
    `step`, `question`, `answer`, `reward`, `advantage`, `marker_emitted`, `trace`.

    Args:
        every_n_steps: optimizer steps between two logs.
        count: number of traces, all of the first prompt.
        print_samples: also print them on the terminal.
    """

    def __init__(self, every_n_steps: int = 50, count: int = 4, *, print_samples: bool = False) -> None:
        self.every_n_steps = every_n_steps
        self.count = count
        self.print_samples = print_samples
        self.last = -1
        self.file: Path | None = None  # for loggers that take no text

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        directory = trainer.log_dir or trainer.default_root_dir  # on all processes: it is broadcast
        self.file = None
        self.last = self.last if trainer.global_step else -1
        without = [type(logger).__name__ for logger in trainer.loggers if not takes_text(logger)]
        if (
            getattr(trainer, "fast_dev_run", False)
            or not trainer.is_global_zero
            or not (without or not trainer.loggers)
        ):
            return
        self.file = Path(directory) / "traces.jsonl"
        why = f"{' and '.join(without)} cannot take text" if without else "the run has no logger"
        log.warning("TraceSamples: %s; traces are added to %s", why, self.file)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        due = step != self.last and step % self.every_n_steps == 0
        if not due or not trainer.is_global_zero or getattr(batch, "rollouts", None) is None:
            return
        self.last = step
        policy: Any = pl_module.policy
        batch = with_rows(batch, policy)
        samples = sampled(policy.tokenizer, batch, outputs, self.count)
        table = sample_table(batch, samples)
        for logger in trainer.loggers:
            log_text(logger, table, step)
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            row = {"step": step, "question": batch.rows[0].question, "answer": batch.rows[0].answer}
            with self.file.open("a", encoding="utf-8") as lines:
                lines.writelines(json.dumps(row | sample, ensure_ascii=False) + "\n" for sample in samples)
        if self.print_samples:
            print(f"\nstep {step}\n{table}")


def sampled(tokenizer: Any, batch: Prompts, outputs: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """The traces of the batch's first prompt, with reward and advantage."""
    assert batch.rollouts is not None
    rollouts = batch.rollouts
    segments, rows = rollouts.segments, (rollouts.group_ids == 0).nonzero().squeeze(-1)[:count].tolist()
    return [
        {
            "reward": round(float(outputs["reward"][row]), 6),
            "advantage": round(float(outputs["advantages"][row].mean()), 6),
            "marker_emitted": bool(segments.marker_emitted[row]),
            "trace": tokenizer.decode(rollouts.completion_ids[row][segments.trace_mask[row]]),
        }
        for row in rows
    ]


def sample_table(batch: Prompts, samples: list[dict[str, Any]]) -> str:
    """Markdown table of traces of the batch's first prompt."""
    lines = [
        f"question `{batch.rows[0].question}` answer `{batch.rows[0].answer}`",
        "",
        "| reward | advantage | marker | trace |",
        "|---:|---:|---|---|",
    ]
    for sample in samples:
        marker = "emitted" if sample["marker_emitted"] else "forced"
        cell = sample["trace"].replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {sample['reward']:.4f} | {sample['advantage']:+.2f} | {marker} | `{cell}` |")
    return "\n".join(lines)


def takes_text(logger: Logger) -> bool:
    """True for loggers that show text."""
    return isinstance(logger, TensorBoardLogger | WandbLogger)


def log_text(logger: Logger, text: str, step: int) -> None:
    """Log a Markdown text, if the logger supports text."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_text("traces", text, step)
    elif isinstance(logger, WandbLogger):
        logger.log_text(key="traces", columns=["step", "traces"], data=[[str(step), text]], step=step)
