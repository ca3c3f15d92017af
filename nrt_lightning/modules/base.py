"""The base class of LightningModules that hold a policy."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cached_property, partial
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from typing_extensions import override

from nrt_lightning.callbacks.exact_resume import add_exact_resume
from nrt_lightning.callbacks.output import output_callbacks
from nrt_lightning.data.batches import TextBatchEncoder, TextBatches, check_batch
from nrt_lightning.evaluation import Evaluation, EvaluationMetrics, TextMetric
from nrt_lightning.export.prompts import remember_prompts
from nrt_lightning.export.record import RunRecord
from nrt_lightning.models.policy.fingerprint import check_same_policy, fingerprint
from nrt_lightning.models.policy.policy import Policy
from nrt_lightning.models.policy.texts import with_rows
from nrt_lightning.modules.gradients import GradientsOfOneStep
from nrt_lightning.modules.positions import check_positions
from nrt_lightning.modules.schedules import (
    LinearSchedule,
    Schedule,
    check_optimizer,
    default_optimizer,
    optimizer_of,
)
from nrt_lightning.modules.trusted_loading import TrustedLoading
from nrt_lightning.randomness import counter_seed, run_seed, seed_all
from nrt_lightning.rollouts.engine import RolloutEngine
from nrt_lightning.strategies import Processes, check_run, layout_of, micro_batches_done
from nrt_lightning.strategies.refused import check_one_dataloader, check_parts
from nrt_lightning.structures import Prompts
from nrt_lightning.training.parts import check_type

log = logging.getLogger(__name__)


class PolicyModule(GradientsOfOneStep, TrustedLoading):
    """Weights, optimizer, seeds, logging, evaluation and checkpoints of a policy."""

    def __init__(
        self,
        policy: Policy,
        engine: RolloutEngine,
        optimizer: OptimizerCallable | None,
        schedule: Schedule | None,
        metrics: list[TextMetric] | dict[str, TextMetric] | None = None,
        text_batches: TextBatches | None = None,
    ) -> None:
        super().__init__()
        if _given_hyperparameters.get() is not None:  # plain dicts of the CLI; objects could not be loaded again
            self.save_hyperparameters(logger=False)
        self.policy, self.engine = policy, engine
        self.optimizer, self.schedule = optimizer or default_optimizer, schedule or LinearSchedule()
        check_type("model.policy", policy, (Policy,))
        check_type("model.engine", engine, (RolloutEngine,))
        check_type("model.schedule", self.schedule, (Schedule,))
        check_optimizer(self.optimizer)
        self.metrics = EvaluationMetrics(metrics)
        self.text_batches = text_batches or TextBatches()
        check_type("model.text_batches", self.text_batches, (TextBatches,))
        self._gathered = ExitStack()  # the full weights, during evaluation

    @override
    def configure_callbacks(self) -> list[L.Callback]:
        """What shows the progress of a run, and gives its settings to the loggers."""
        check_parts(self.trainer)  # before the setup of any callback
        add_exact_resume(self.trainer)
        return output_callbacks(self.trainer)

    # Weights

    @override
    def setup(self, stage: str) -> None:
        """Check the settings before any weights are read."""
        check_run(self.trainer, self.policy, stage)
        self.engine.check(self.policy)

    @override
    def configure_model(self) -> None:
        """Read the weights and shard them for the strategy."""
        self.policy.load(None if self._trainer is None else layout_of(self.trainer))
        if self.policy.sharding.active and self.policy.adapter is not None:
            self.strict_loading = False  # a checkpoint has no frozen weights

    @override
    def configure_optimizers(self) -> Any:
        """The optimizer over all parameters that require a gradient, and a schedule stepped with it."""
        make = self.optimizer
        if make is default_optimizer:  # Lightning clips no fused optimizer in mixed precision
            make = partial(make, fused=not isinstance(self.trainer.precision_plugin, MixedPrecision))
        optimizer = optimizer_of(make, self.policy.parameters())
        scheduler = self.schedule(optimizer, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @override
    def on_fit_start(self) -> None:
        """Check that the rows fit into the model, before anything is sampled."""
        check_one_dataloader(self.trainer)
        check_positions(self, getattr(self.trainer, "datamodule", None))

    @override
    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Encode a batch of plain texts (`TextBatches`). None skips the batch: a process has no row that fits."""
        trainer = self._trainer
        if not isinstance(batch, Mapping):
            evaluates = isinstance(batch, Prompts) and trainer is not None and not trainer.training
            return with_rows(batch, self.policy) if evaluates else batch
        encoded = self.text_encoder.encode(batch, require_answers=not getattr(trainer, "predicting", False))
        together = trainer is not None and trainer.training  # processes train in step
        return None if together and self.processes.largest(int(encoded is None)) else encoded

    @cached_property
    def text_encoder(self) -> TextBatchEncoder:
        """Encodes the batches of plain texts and counts their rows."""
        return TextBatchEncoder(self.text_batches, self.policy.tokenizer, rank_zero_info, self.policy)

    @override
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the training step (dropout), and keep a few prompts for exports."""
        remember_prompts(self, batch)
        self.seed_step()
        self.start_clock()

    def seed_step(self) -> None:
        """Seed the training step by counter."""
        seed_all(counter_seed(run_seed(), 0, micro_batches_done(self.trainer), self.global_rank, "train"))

    @property
    def processes(self) -> Processes:
        """The processes of the run; one without a trainer."""
        return Processes(None if self._trainer is None else self.trainer.strategy)

    @override
    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the gradient norm before clipping."""
        self.log("train/grad_norm", self.policy.sharding.grad_norm(self.policy), batch_size=1)

    @override
    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of the full gradient, also where processes hold parts of it."""
        if self.policy.sharding.active and gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            self.policy.sharding.clip(self.policy, float(gradient_clip_val))
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    # Evaluation

    @abstractmethod
    def answer(self, prompts: Prompts) -> Evaluation:
        """Let the policy answer questions, and score the reference answers. The policy is in eval mode."""

    def evaluate(self, prompts: Prompts) -> Evaluation:
        """Evaluate the policy on questions, and add the results to the metrics."""
        check_batch(prompts)
        prompts = with_rows(prompts, self.policy)
        with self.policy.evaluating():
            found = self.answer(prompts)
        self.metrics.update(prompts, found)
        return found

    @override
    def validation_step(self, batch: Prompts | None, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Evaluate the policy. Callbacks get the fields of the `Evaluation`, such as `texts`."""
        found = {} if batch is None else vars(self.evaluate(batch))  # None: no row fits
        return {name: value for name, value in found.items() if value is not None}

    test_step = validation_step

    @override
    def on_validation_start(self) -> None:
        """Reset the metrics. Gather sharded weights for the whole loop, so that processes may differ in batches.

        An engine with weights of its own receives them instead; scoring then gathers the policy's weights by block.
        """
        check_one_dataloader(self.trainer)
        self.metrics.start(self.device)
        if self.engine.own_weights:
            self.engine.send(self.policy)
        else:
            self._gathered.enter_context(self.policy.gathered())

    @override
    def on_validation_end(self) -> None:
        """Free the gathered weights."""
        self._gathered.close()

    on_test_start = on_predict_start = on_validation_start
    on_test_end = on_predict_end = on_validation_end

    @override
    def on_validation_epoch_end(self) -> None:
        """Log the metrics, equal on all processes, under `val/`, or `test/` in a test."""
        prefix, several = "test" if self.trainer.testing else "val", self.trainer.world_size > 1
        for name, value in self.metrics.compute().items():  # Lightning warns without sync_dist
            self.log(f"{prefix}/{name}", value, prog_bar=name == "exact_match", sync_dist=several)

    on_test_epoch_end = on_validation_epoch_end

    # Checkpoints

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the policy's fingerprint, the method's settings and a record of the run."""
        run = RunRecord.of(self.trainer, self).to_dict()
        checkpoint["nrt_lightning"] = {"policy": fingerprint(self.policy), "method": self.describe(), "run": run}

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint is the policy's, and warn about changed settings of the method.

        Raises:
            InputError: the checkpoint's policy has another architecture, vocabulary or marker.
        """
        stored = checkpoint.get("nrt_lightning", {})
        check_same_policy(stored.get("policy", {}), self.policy)
        for part, mine in self.describe().items():
            if (before := stored.get("method", {}).get(part, mine)) != mine:
                log.warning("the checkpoint was trained with %s=%s; this run continues with %s", part, before, mine)

    def describe(self) -> dict[str, str]:
        """The method's parts and settings, as text."""
        return {}
