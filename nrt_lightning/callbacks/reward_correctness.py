"""Compares the rewards of traces with the correctness of the answers after them."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from typing_extensions import override

from nrt_lightning.callbacks.looks import LookingCallback, Looks
from nrt_lightning.errors import InputError
from nrt_lightning.evaluation.probe import probe
from nrt_lightning.metrics import CorrectnessMetric
from nrt_lightning.randomness import counter_seed, run_seed
from nrt_lightning.structures import Sampling
from nrt_lightning.training.checks import method_of

log = logging.getLogger(__name__)


class RewardCorrectness(LookingCallback):
    """Logs in validation how the reward of traces follows the correctness of the answers given after them.

    For some validation rows the policy writes K traces as in training and an answer after each, greedily. The reward of
    each trace is then compared with the correctness of its answer. An answer is right if it is the reference answer or,
    for rows with `Row.checks`, contains their pieces. Kendall's tau and AUROC over all traces and within groups come
    under `correctness/`; `nrt_lightning.metrics.reward_correctness` says what each means. Where no answer is right
    there is no order to measure, and a warning says so.

    A measurement costs `rows` * K traces, scored completions and answers: with as many rows as a batch, one training
    step without its backward pass, and the answers.

    Args:
        every_n_steps: optimizer steps between two measurements at least; a measurement is part of a validation.
        rows: validation rows of a measurement, the first ones of all processes together.
        sampling: how traces are drawn; null for the module's own `sampling`.

    Raises:
        InputError: the module has no traces or no reward, or the settings leave nothing to compare.

    Example:
        >>> RewardCorrectness(every_n_steps=100).rows
        32
    """

    def __init__(self, every_n_steps: int = 50, rows: int = 32, sampling: Sampling | None = None) -> None:
        self.looks = Looks(type(self).__name__, every_n_steps, rows)
        self.every_n_steps, self.rows, self.sampling = every_n_steps, rows, sampling
        self.metric = CorrectnessMetric()

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage not in ("fit", "validate"):
            return
        method = method_of(pl_module, type(self).__name__)
        if (self.sampling or method.sampling).group_size < 2:
            raise InputError("RewardCorrectness compares the traces of a group: set sampling.group_size to 2 or more.")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See whether a measurement is due."""
        if self.looks.begin(trainer):
            self.metric.to(pl_module.device).reset()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look at the rows of this batch that are due."""
        if (taken := self.looks.take(batch)) is None:
            return
        prompts, rows = taken
        seed = counter_seed(run_seed(), 0, 0, 0, "correctness")  # a draw follows from the row
        method = method_of(pl_module, type(self).__name__)
        method = dataclasses.replace(method, sampling=self.sampling or method.sampling)
        with trainer.precision_plugin.forward_context():
            seen = probe(method, prompts, seed)
            reward = method.compute_rewards(seen.batch)
        groups = seen.batch.trained.group_ids  # [N]
        counted = rows[groups]
        unique = (trainer.global_rank << 48) + (batch_idx << 24)  # group ids differ over batches and processes
        self.metric.update(reward.value[counted], seen.right[counted], (groups + unique)[counted])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the measurement."""
        if not self.metric.update_called:
            return
        values = self.metric.compute()
        self.metric.reset()
        same = trainer.world_size > 1  # equal on all processes already; said to Lightning, which would warn
        pl_module.log_dict({f"correctness/{name}": value for name, value in values.items()}, sync_dist=same)
        if not values["right"]:
            log.warning(
                "RewardCorrectness: none of the answers was right, so there is no order to measure. Either the policy "
                "cannot answer yet, or exact match cannot judge these rows."
            )
