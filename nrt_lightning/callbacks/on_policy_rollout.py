"""On-policy rollouts: the batch of questions becomes a batch of sampled traces before the training step sees it."""

from __future__ import annotations

import dataclasses
import logging
import math
from functools import partial
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from nrt_lightning.callbacks.answers_in_prompts import check_answers, share_at
from nrt_lightning.callbacks.exact_resume import add_exact_resume
from nrt_lightning.callbacks.generation_progress import generation_progress
from nrt_lightning.callbacks.surplus import Surplus, joined
from nrt_lightning.data.batches import check_batch
from nrt_lightning.errors import InputError
from nrt_lightning.export.prompts import remember_prompts
from nrt_lightning.randomness import counter_seed, run_seed
from nrt_lightning.strategies import Processes, check_precision, gather_objects, micro_batches_done
from nrt_lightning.structures import Prompts, Segments, WindowStep
from nrt_lightning.training.checks import check_method, check_sampled, method_of, warn_of_idle_parts
from nrt_lightning.training.method import Method
from nrt_lightning.training.micro_batches import loss_segments
from nrt_lightning.training.sampling import SampledWindow, measure_signals, sample_window, score_window
from nrt_lightning.training.window import apply_window_parts

log = logging.getLogger(__name__)
KEY = "questions_left_over"  # in a checkpoint


class OnPolicyRollout(Callback):
    """Samples K traces for every prompt and puts the rollouts into the batch, in place.

    A batch of type `Prompts` carries the prompts of a whole window. At the window's first micro-batch traces are
    sampled for all of them; every micro-batch then gets its part, once in each of the window's epochs. If the
    optimizer steps at most once in a window, the data is on-policy and the training forward's log-probs serve as the
    old ones. If it steps more often, or the method reads whole windows (group filters), the window is scored before
    its first step.

    `NRTModule` adds this callback by itself. A LightningModule of your own sets `self.method` (a `Method`) and
    `self.policy`.

    Args:
        progress: show progress while traces are sampled.

    Raises:
        InputError: the module has no method, the window does not fit `accumulate_grad_batches`, or groups are to be
            replaced and the data has no more rows to give.
    """

    older_traces = False  # True: the policy learns from traces of older weights

    def __init__(self, *, progress: bool = True) -> None:
        self.progress = progress
        self.window: list[Prompts] = []
        self.surplus = Surplus()

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        add_exact_resume(trainer)
        self.window, self.surplus = [], Surplus()
        method = method_of(pl_module, type(self).__name__)
        check_precision(trainer, method.policy)
        check_method(method)
        check_sampled(method)
        warn_of_idle_parts(method)
        method.engine.check(method.policy)
        data: Any = getattr(trainer, "datamodule", None)
        on_policy(getattr(data, "window", 1), trainer.accumulate_grad_batches, getattr(data, "window_epochs", 1))
        check_answers(data, getattr(pl_module, "text_batches", None), method)
        if method.sampling.refill_rounds and not hasattr(data, "replacement_rows"):
            raise InputError(
                f"sampling.refill_rounds is {method.sampling.refill_rounds}, but the data cannot give more rows. Use "
                "QADataModule, give your datamodule a method `replacement_rows`, or set refill_rounds to 0."
            )

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        check_batch(batch)
        remember_prompts(pl_module, batch)
        place = batch.window
        if place.first or len(self.window) != place.size:  # resumed inside a window: sample it anew
            begun = place.epoch * place.size + place.index
            self.window = self.fill_window(trainer, pl_module, batch, micro_batches_done(trainer) - begun)
        filled = self.window[batch.window.index]
        for field in dataclasses.fields(batch):
            setattr(batch, field.name, getattr(filled, field.name))
        batch.window = place
        method = method_of(pl_module, type(self).__name__)
        batch.step = step_segments(trainer, method, self.window, place, batch_idx)

    def fill_window(self, trainer: Trainer, pl_module: Any, prompts: Prompts, position: int) -> list[Prompts]:
        """The window's micro-batches with rollouts, scores and credit, as far as these come before the steps.

        Args:
            trainer: of the run.
            pl_module: with the method.
            prompts: of the window.
            position: of the window's first micro-batch in the run, over all epochs.
        """
        method: Method = pl_module.method
        self.surplus.begin(position, position + prompts.window.size * prompts.window.epochs)
        with trainer.precision_plugin.forward_context():
            sampled = self.sample(trainer, method, prompts, position, "rollout")
            steps = steps_within(trainer, prompts.window)
            score_window(method, sampled.micro_batches, steps=steps)
            self.log_sampling(pl_module, sampled, len(prompts))
            return self.apply_window_parts(trainer, pl_module, sampled.micro_batches, position, steps=steps)

    def apply_window_parts(
        self, trainer: Trainer, pl_module: Any, window: list[Prompts], position: int, *, steps: bool
    ) -> list[Prompts]:
        """The window after its filters and with advantages over the batch, where the method has such parts."""
        if not pl_module.method.needs_window:
            return window
        more_rows = partial(self.more_rows, trainer, pl_module.method, position, steps=steps)
        processes = Processes(trainer.strategy)
        applied = apply_window_parts(pl_module.method, window, more_rows, processes)
        if pl_module.method.sampling.keep_surplus:
            self.surplus.keep(applied.surplus)
        count = sum(len(batch) for batch in window)
        moves: dict[str, bool | None] = {
            "train": None,
            "rollout": None if pl_module.method.sampling.refill_rounds else False,
        }
        for prefix, values in (("train", applied.train), ("rollout", applied.rollout)):
            for name, value in values.items():
                mean = processes.mean(value.to(pl_module.device))
                pl_module.log(f"{prefix}/{name}", mean, batch_size=count, logger=moves[prefix])
        return applied.micro_batches

    def more_rows(
        self, trainer: Trainer, method: Method, position: int, like: Prompts, count: int, number: int, *, steps: bool
    ) -> list[Prompts]:
        """Scored rollouts of more rows, in micro-batches no larger than the window's, for one round of replacement.

        Args:
            trainer: of the run.
            method: of the module.
            position: of the window's first micro-batch in the run.
            like: a micro-batch of the window.
            count: rows.
            number: of the round.
            steps: as in `score_window`.
        """
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        kept = self.surplus.take(count)
        fresh = data.replacement_rows(count - len(kept), 0, position, number) if len(kept) < count else None
        prompts = joined(kept, fresh).to(like.prompt_ids.device)
        prompts.window = WindowStep(0, math.ceil(count / len(like)))
        more = self.sample(trainer, method, prompts, position, f"refill {number}").micro_batches
        score_window(method, more, steps=steps)
        return more

    def sample(self, trainer: Trainer, method: Method, prompts: Prompts, position: int, stream: str) -> SampledWindow:
        """Micro-batches of these prompts with rollouts and measured signals."""
        seed = counter_seed(run_seed(), 0, position, stream=stream)
        if method.policy.sharding.active:  # all processes send together; `generate` sends whole weights by itself
            method.engine.send(method.policy)
        share = share_at(trainer, method, position)
        with generation_progress(trainer, enabled=self.progress) as progress:
            sampled = sample_window(method, prompts, seed, progress=progress, share=share)
        measure_signals(method, sampled.micro_batches)
        return sampled

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the questions that every process keeps."""
        if pl_module.method.sampling.keep_surplus:
            checkpoint[KEY] = gather_objects(self.surplus.state_dict())

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        states = checkpoint.get(KEY, [])
        if len(states) == trainer.world_size:
            self.surplus.load_state_dict(states[trainer.global_rank])
        elif states:
            log.warning("The questions left over in the checkpoint are of %s processes: they are dropped.", len(states))

    def log_sampling(self, pl_module: Any, sampled: SampledWindow, prompts: int) -> None:
        """Log how fast the window was sampled, and how much memory that took."""
        pl_module.log("rollout/tokens_per_second", sampled.tokens / max(sampled.seconds, 1e-9), batch_size=prompts)
        pl_module.log("rollout/seconds", sampled.seconds, batch_size=prompts)
        pl_module.log("rollout/peak_memory_mib", sampled.peak_memory / 2**20, batch_size=prompts)


def step_segments(
    trainer: Any, method: Method, window: list[Prompts], place: WindowStep, batch_idx: int
) -> list[Segments]:
    """The tokens that carry a loss, of all micro-batches of the optimizer step that begins here.

    None if no step begins here, or if not all of its micro-batches have been sampled.

    Args:
        trainer: of the run.
        method: that the loss is of.
        window: with rollouts.
        place: of this micro-batch in the window.
        batch_idx: of this micro-batch in the epoch.
    """
    count = trainer.accumulate_grad_batches
    if count == 1 or batch_idx % count or place.size * place.epochs % count:
        return []
    first, rest = place.epoch * place.size + place.index, trainer.num_training_batches - batch_idx
    numbers = range(first, first + int(min(count, rest)))  # the last step of an epoch may be shorter
    return [loss_segments(method, window[number % place.size]) for number in numbers]


def steps_within(trainer: Trainer, window: WindowStep) -> bool:
    """True if the optimizer steps within the window, before its end."""
    return not on_policy(window.size, trainer.accumulate_grad_batches, window.epochs)


def on_policy(window: int, accumulate: int, epochs: int = 1) -> bool:
    """True if the optimizer steps at most once in a window, in all its epochs.

    Raises:
        InputError: neither divides the other, so that a step would mix parts of windows.

    >>> on_policy(4, 4), on_policy(1, 4), on_policy(4, 1), on_policy(4, 4, epochs=2)
    (True, True, False, False)
    """
    if accumulate % (window * epochs) == 0:
        return True
    if window % accumulate == 0:
        return False
    raise InputError(
        f"data.window is {window} micro-batches and trainer.accumulate_grad_batches is {accumulate}: an optimizer "
        "step would mix parts of windows. Make one a multiple of the other (equal for exactly on-policy training)."
    )
