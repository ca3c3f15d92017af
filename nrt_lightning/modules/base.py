"""What every LightningModule around a policy shares."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters
from torch import Tensor

from nrt_lightning.data.encoding import PromptEncoder
from nrt_lightning.data.templates import PlainTemplate
from nrt_lightning.errors import InputError
from nrt_lightning.export.record import RunRecord
from nrt_lightning.metrics.reasoning import ReasoningMetrics
from nrt_lightning.models.policy.fingerprint import check_same_policy
from nrt_lightning.models.policy.policy import Policy
from nrt_lightning.modules.schedules import LinearSchedule, Schedule
from nrt_lightning.randomness import counter_seed, run_seed, seed_all
from nrt_lightning.rollouts.engine import RolloutEngine
from nrt_lightning.strategies import (
    Processes,
    check_before_loading,
    check_quantization,
    check_strategy,
    layout_of,
    sharded,
)
from nrt_lightning.structures import Prompts, Row

log = logging.getLogger(__name__)
# Ours leaves the batches of a datamodule that yields Prompts as they are.
warnings.filterwarnings("ignore", message="You have overridden `on_before_batch_transfer`")


def default_optimizer(params: Any) -> torch.optim.Optimizer:
    """AdamW as the paper's authors use it (arXiv 2602.11549)."""
    return torch.optim.AdamW(params, lr=2e-6, betas=(0.9, 0.95), eps=1e-15, weight_decay=0.01)


class PolicyModule(L.LightningModule):
    """Weights, optimizer, randomness and checkpoints of a policy that is trained or evaluated."""

    def __init__(
        self,
        policy: Policy,
        engine: RolloutEngine,
        optimizer: OptimizerCallable | None,
        schedule: Schedule | None,
    ) -> None:
        super().__init__()
        if _given_hyperparameters.get() is not None:  # the CLI's plain dicts; live objects could not be loaded again
            self.save_hyperparameters(logger=False)
        self.policy = policy
        self.engine = engine
        self.optimizer = optimizer or default_optimizer
        self.schedule = schedule or LinearSchedule()
        self.val_metrics = ReasoningMetrics()
        self.test_metrics = ReasoningMetrics()
        self._started = 0.0
        self._gathered = ExitStack()  # weights, in evaluation

    # Weights

    def setup(self, stage: str) -> None:
        """Refuse what cannot be trained or sampled, before any weights are read."""
        check_quantization(self.policy, self.trainer.precision_plugin, stage)
        check_strategy(self.trainer)
        if sharded(self.trainer):
            check_before_loading(self.trainer.strategy)
        self.engine.check(self.policy)

    def configure_model(self) -> None:
        """Read the weights and shard them as the strategy asks; Lightning calls it in every process."""
        self.policy.load(None if self._trainer is None else layout_of(self.trainer))
        if self.policy.sharding.active and self.policy.adapter is not None:
            self.strict_loading = False  # a checkpoint has no frozen weights

    def configure_optimizers(self) -> Any:
        """The optimizer over everything that requires a gradient, and its schedule by step."""
        optimizer = self.optimizer([p for p in self.policy.parameters() if p.requires_grad])
        scheduler = self.schedule(optimizer, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # Batches

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Encode batches of plain texts, `{"question": [...], "answer": [...]}`, from a dataloader of your own."""
        if isinstance(batch, Prompts) or not isinstance(batch, Mapping):
            return batch
        if "question" not in batch:
            raise InputError(f"A batch has the keys {sorted(batch)}; it needs 'question', and 'answer' but to predict.")
        answers = batch.get("answer") or [None] * len(batch["question"])
        rows = [
            Row(str(i), [{"role": "user", "content": question}], answer, origin=f"batch row {i}")
            for i, (question, answer) in enumerate(zip(batch["question"], answers, strict=True))
        ]
        encoded = PromptEncoder(self.policy.tokenizer, PlainTemplate()).encode(rows, "batch")
        return encoded.collate([encoded[i] for i in range(len(encoded))])

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed what the training step draws (dropout), by counter."""
        seed_all(counter_seed(run_seed(), self.current_epoch, batch_idx, self.global_rank, "train"))
        self._started = time.perf_counter()

    # Optimization

    @property
    def processes(self) -> Processes:
        """The processes of the run; one without a trainer."""
        return Processes(None if self._trainer is None else self.trainer.strategy)

    def backward_part(self, loss: Tensor) -> None:
        """Add the gradient of a part of the batch now; Lightning takes that of the part that is returned."""
        self.trainer.strategy.backward(loss / self.trainer.accumulate_grad_batches, None)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Step, and clear the gradients at once: none take up memory while traces are sampled."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        optimizer.zero_grad()

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        """Nothing: Lightning asks for it after the training step, which may have taken gradients already."""

    # Logging

    def log_scalars(
        self, values: dict[str, Tensor], prefix: str, batch_size: int, counts: dict[str, Tensor] | None = None
    ) -> None:
        """Log values under `prefix/`: those of all processes, largest ones (`_max`) and means.

        Args:
            values: scalars of this process.
            prefix: of their names.
            batch_size: of this process.
            counts: how many things a value is the mean of, where processes differ in that.
        """
        if self.trainer.world_size > 1:
            values = self.over_processes(values, counts or {})
        for name, value in values.items():
            self.log(f"{prefix}/{name}", value, batch_size=batch_size)

    def over_processes(self, values: dict[str, Tensor], counts: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same scalars of all processes together, in as few messages as they take."""
        largest = [name for name in values if name.endswith("_max")]
        means = [name for name in values if not name.endswith("_max")]
        here = {name: values[name].to(self.device, torch.float32) for name in values}
        weights = [counts.get(name, torch.ones(())).to(here[name]) for name in means]
        sums = [here[name].where(weight > 0, 0) * weight for name, weight in zip(means, weights, strict=True)]
        totals = self.processes.mean(torch.stack(sums + weights))  # [2 * means]
        found = dict(zip(means, totals[: len(means)] / totals[len(means) :].clamp(min=1e-9), strict=True))
        if largest:
            top = self.trainer.strategy.reduce(torch.stack([here[name] for name in largest]), reduce_op="max")
            found |= dict(zip(largest, top, strict=True))
        return found

    def log_throughput(self, tokens: Tensor | int) -> None:
        """Log tokens per second of the training step so far, forward only under automatic optimization."""
        seconds = max(time.perf_counter() - self._started, 1e-9)
        self.log("train/tokens_per_second", float(tokens) / seconds, batch_size=1)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the norm of the gradient before it is clipped."""
        self.log("train/grad_norm", self.policy.sharding.grad_norm(self.policy), batch_size=1)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of the whole gradient, of which a process may hold a share only."""
        if self.policy.sharding.active and gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            self.policy.sharding.clip(self.policy, float(gradient_clip_val))
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def log_evaluation(self, metrics: ReasoningMetrics, prefix: str) -> None:
        """Log an evaluation's metrics and forget them."""
        values = metrics.compute()
        for name, value in values.items():
            same = self.trainer.world_size > 1  # equal on all processes already; said to Lightning, which would warn
            self.log(f"{prefix}/{name}", value, prog_bar=name == "exact_match", sync_dist=same)
        metrics.reset()

    def on_validation_start(self) -> None:
        """Gather sharded weights for the whole loop: then processes need not have as many batches.

        An engine with weights of its own gets them instead, and the policy's are gathered block by block to score.
        """
        if self.engine.own_weights:
            self.engine.send(self.policy)
        else:
            self._gathered.enter_context(self.policy.gathered())

    def on_validation_end(self) -> None:
        """Free what was gathered."""
        self._gathered.close()

    on_test_start = on_predict_start = on_validation_start
    on_test_end = on_predict_end = on_validation_end

    def on_validation_epoch_end(self) -> None:
        """Log the validation's metrics under `val/`."""
        self.log_evaluation(self.val_metrics, "val")

    def on_test_epoch_end(self) -> None:
        """Log the test's metrics under `test/`."""
        self.log_evaluation(self.test_metrics, "test")

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note whose checkpoint it is."""
        run = RunRecord.of(self.trainer, self).to_dict()
        checkpoint["nrt_lightning"] = {"policy": self.policy.fingerprint(), "method": self.describe(), "run": run}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another model; say where the method is another.

        Raises:
            InputError: the checkpoint's policy has another architecture, vocabulary or marker.
        """
        noted = checkpoint.get("nrt_lightning", {})
        check_same_policy(noted.get("policy", {}), self.policy)
        for part, mine in self.describe().items():
            before = noted.get("method", {}).get(part, mine)
            if before != mine:
                log.warning("the checkpoint was trained with %s=%s; this run goes on with %s", part, before, mine)

    def describe(self) -> dict[str, str]:
        """The method's parts and settings, as text."""
        return {}
