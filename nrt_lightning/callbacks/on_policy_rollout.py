"""On-policy rollouts: the batch of questions becomes a batch of sampled traces before the training step sees it."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from nrt_lightning.callbacks.generation_progress import generation_progress
from nrt_lightning.errors import InputError
from nrt_lightning.functional.randomness import counter_seed, run_seed
from nrt_lightning.models.policy import Policy
from nrt_lightning.rollouts import (
    Generations,
    RolloutEngine,
    TransformersEngine,
    assemble,
    respond,
    trace_request,
    write_own_answers,
)
from nrt_lightning.signals import RolloutEvidence
from nrt_lightning.structures import OwnAnswers, Prompts, Sampling


class OnPolicyRollout(Callback):
    """Samples K traces for every prompt and puts the assembled rollouts into the batch, in place.

    A batch of type `Prompts` carries the prompts of a whole window. At the window's first micro-batch traces are
    sampled for all of them; every micro-batch then gets its share. Where the optimizer steps at most once in a window
    the data is on-policy, and the training forward's own log-probs serve as the old ones; where it steps more often,
    the window is scored before its first step.

    `NRTModule` adds this callback by itself. In a LightningModule of your own, give it `policy` (a `Policy`) and pass
    `sampling` here.

    Args:
        sampling: how traces are drawn; null for the module's own `sampling`.
        engine: what draws them; null for the module's own `engine`, or the in-process one.
        progress: show progress while it generates.

    Raises:
        InputError: the module has no policy or sampling, or the window does not fit `accumulate_grad_batches`.
    """

    def __init__(
        self, sampling: Sampling | None = None, engine: RolloutEngine | None = None, progress: bool = True
    ) -> None:
        self.sampling = sampling
        self.engine = engine
        self.progress = progress
        self.window: list[Prompts] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find what the module offers, and check that windows and optimizer steps fit."""
        if stage != "fit":
            return
        for name in ("policy", "sampling"):
            if getattr(self, name, None) is None and getattr(pl_module, name, None) is None:
                raise InputError(
                    f"OnPolicyRollout needs `{name}`: give {type(pl_module).__name__} the attribute, "
                    "or use NRTModule, which has it."
                )
        data = getattr(trainer, "datamodule", None)
        on_policy(getattr(data, "window", 1), trainer.accumulate_grad_batches)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Fill the batch."""
        if not isinstance(batch, Prompts):
            raise InputError(
                f"OnPolicyRollout got a batch of type {type(batch).__name__}; it needs Prompts. Yield them from the "
                "dataloader (QADataModule does), or make them in on_before_batch_transfer with a PromptEncoder."
            )
        if batch.window.index == 0:
            self.window = self.sample_window(trainer, pl_module, batch, batch_idx)
        elif len(self.window) != batch.window.size:
            raise RuntimeError("The run begins in the middle of a window; resume from a checkpoint at a window's end.")
        share = self.window[batch.window.index]
        for field in dataclasses.fields(batch):
            setattr(batch, field.name, getattr(share, field.name))

    def sample_window(
        self, trainer: Trainer, pl_module: LightningModule, prompts: Prompts, batch_idx: int
    ) -> list[Prompts]:
        """The window's micro-batches with their rollouts."""
        policy: Policy = pl_module.policy  # type: ignore[assignment]
        seed = counter_seed(run_seed(), trainer.current_epoch, batch_idx, trainer.global_rank, "rollout")
        with trainer.precision_plugin.forward_context():
            started = time.perf_counter()
            generations = self.generate(trainer, pl_module, prompts, seed)
            own = self.own_answers(pl_module, prompts, generations, seed)
            seconds = time.perf_counter() - started
            window = hand_out(prompts, generations, policy.marker_id, own)
            complete_window(pl_module, window)
            off_policy = not on_policy(prompts.window.size, trainer.accumulate_grad_batches)
            if off_policy or getattr(pl_module, "train_response", False):
                score_window(policy, window, responses=off_policy)
        tokens = int(generations.token_mask.sum())
        pl_module.log("rollout/tokens_per_second", tokens / max(seconds, 1e-9), batch_size=len(prompts))
        pl_module.log("rollout/seconds", seconds, batch_size=len(prompts))
        return window

    def generate(self, trainer: Trainer, pl_module: Any, prompts: Prompts, seed: int) -> Generations:
        """K traces for every prompt."""
        engine = self.engine or getattr(pl_module, "engine", None) or TransformersEngine()
        request = trace_request(pl_module.policy, prompts, self.sampling or pl_module.sampling, seed)
        with generation_progress(trainer, enabled=self.progress) as progress:
            return engine.generate(pl_module.policy, request, progress)

    def own_answers(self, pl_module: Any, prompts: Prompts, traces: Generations, seed: int) -> OwnAnswers | None:
        """An answer of the policy's own after every trace, if the module asks for them."""
        if not getattr(pl_module, "needs_own_answers", False):
            return None
        engine = self.engine or getattr(pl_module, "engine", None) or TransformersEngine()
        sampling = self.sampling or pl_module.sampling
        return write_own_answers(pl_module.policy, engine, prompts, traces, sampling, seed + 1)


def hand_out(
    prompts: Prompts, generations: Generations, marker_id: int, own: OwnAnswers | None = None
) -> list[Prompts]:
    """The micro-batches of a window, each with its share of prompts and their rollouts."""
    size, per_prompt = prompts.window.size, len(generations) // len(prompts)
    steps = len(prompts) // size
    window = []
    for start in range(0, size * steps, steps):
        share = prompts.select(start, start + steps)
        first, last = start * per_prompt, (start + steps) * per_prompt
        share.rollouts = assemble(share, generations.select(first, last), marker_id)
        if own is not None:
            share.rollouts.own_answers = OwnAnswers(own.ids[first:last], own.mask[first:last], own.ended[first:last])
        window.append(share)
    return window


def complete_window(pl_module: Any, window: list[Prompts]) -> None:
    """Make responses of the rollouts, where those are trained, and measure the signals that are measured now."""
    signals = getattr(pl_module, "signals", None)
    for prompts in window:
        assert prompts.rollouts is not None
        if getattr(pl_module, "train_response", False):
            prompts.rollouts = respond(prompts.rollouts)
        if signals is not None:
            with pl_module.policy.evaluating():
                prompts.rollouts.judged.measured = signals.measure(RolloutEvidence(pl_module.policy, prompts))


def on_policy(window: int, accumulate: int) -> bool:
    """Whether the optimizer steps at most once in a window.

    Raises:
        InputError: neither divides the other, so that a step would mix parts of windows.

    >>> on_policy(4, 4), on_policy(1, 4), on_policy(4, 1)
    (True, True, False)
    """
    if accumulate % window == 0:
        return True
    if window % accumulate == 0:
        return False
    raise InputError(
        f"data.window is {window} micro-batches and trainer.accumulate_grad_batches is {accumulate}: an optimizer "
        "step would mix parts of windows. Make one a multiple of the other (equal for exactly on-policy training)."
    )


def score_window(policy: Policy, window: list[Prompts], responses: bool = True) -> None:
    """Note the old policy's log-probs, and the baseline's, before the first optimizer step changes the weights.

    Args:
        policy: the old one, still.
        window: its micro-batches.
        responses: score responses too, beside the reference answers; on-policy the training forward's values serve.
    """
    with policy.evaluating():
        for prompts in window:
            rollouts = prompts.rollouts
            if rollouts is not None:
                scores = policy.score(rollouts.judged, baseline=True)
                rollouts.judged.old_logprobs = scores.logprobs
                rollouts.judged.baseline_logprobs = scores.baseline_logprobs
                if responses and rollouts.answered is not None:
                    rollouts.old_logprobs = policy.score(rollouts).logprobs
