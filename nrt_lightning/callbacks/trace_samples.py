"""Logging of sampled traces during training."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from typing_extensions import override

from nrt_lightning.structures import Prompts


class TraceSamples(Callback):
    """Logs sampled traces as text to TensorBoard and Weights & Biases.

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
        table = sample_table(policy.tokenizer, batch, outputs, self.count)
        for logger in trainer.loggers:
            log_text(logger, table, step)
        if self.print_samples:
            print(f"\nstep {step}\n{table}")


def sample_table(tokenizer: Any, batch: Prompts, outputs: dict[str, Any], count: int) -> str:
    """Markdown table of traces of the batch's first prompt, with reward and advantage."""
    assert batch.rollouts is not None
    rollouts = batch.rollouts
    segments, rows = rollouts.segments, (rollouts.group_ids == 0).nonzero().squeeze(-1)[:count].tolist()
    lines = [
        f"question `{batch.rows[0].question}` answer `{batch.rows[0].answer}`",
        "",
        "| reward | advantage | marker | trace |",
        "|---:|---:|---|---|",
    ]
    for row in rows:
        trace = tokenizer.decode(rollouts.completion_ids[row][segments.trace_mask[row]])
        marker = "emitted" if segments.marker_emitted[row] else "forced"
        cell = trace.replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {outputs['reward'][row]:.4f} | {outputs['advantages'][row]:+.2f} | {marker} | `{cell}` |")
    return "\n".join(lines)


def log_text(logger: Logger, text: str, step: int) -> None:
    """Log a Markdown text, if the logger supports text."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_text("traces", text, step)
    elif isinstance(logger, WandbLogger):
        logger.log_text(key="traces", columns=["step", "traces"], data=[[str(step), text]], step=step)
