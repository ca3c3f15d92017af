"""Rollouts one window ahead: sampled in the background while the window before is trained."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from typing_extensions import override

from nrt_lightning.callbacks.ahead_checks import check_ahead
from nrt_lightning.callbacks.ahead_state import restore_state, to_state
from nrt_lightning.callbacks.on_policy_rollout import OnPolicyRollout, share_at, steps_within
from nrt_lightning.models.policy.policy import Policy
from nrt_lightning.models.policy.snapshot import copy_from, snapshot
from nrt_lightning.randomness import counter_seed, run_seed
from nrt_lightning.strategies import gather_objects
from nrt_lightning.structures import Prompts
from nrt_lightning.training.method import Method
from nrt_lightning.training.sampling import (
    SampledWindow,
    measure_signals,
    sample_window,
    score_window,
    score_with_other_models,
    score_with_policy,
)

log = logging.getLogger(__name__)
KEY = "window_sampled_ahead"  # in a checkpoint


@dataclass
class Ahead:
    """A window that is being sampled, or has been."""

    position: int  # of its first micro-batch in the run, over all epochs
    window: Future[SampledWindow]
    measured: bool = False  # True: its signals are measured


class AheadRollout(OnPolicyRollout):
    """Samples the traces of the next window in the background while this one is trained.

    The data is off-policy by one window: window t + 1 learns from traces of the policy at the start of window t. That
    policy is the old one: its log-probs are stored when it has written the traces, and the ratio and its clipping
    correct from the first step on. The first window is on-policy.

    An engine that reads the policy's weights samples from a second policy with a copy of what is trained. An engine
    with weights of its own (`RolloutEngine.own_weights`) is sent those of the window's start, which nobody has
    afterwards: the old policy is then that of the start of the window that is trained, and `loss.sampler_correction`
    corrects from the engine's log-probs to it, as in arXiv 2505.24298.

    A checkpoint waits for the window that is being sampled and holds its ids and log-probs, so a resumed run equals
    the uninterrupted one.

    Args:
        progress: show progress while filtered groups are replaced; the background shows none.

    Raises:
        InputError: as `OnPolicyRollout`; the data cannot give the next window's prompts early, the engine reads
            weights that are sharded or on a GPU, or the loss does not correct for older traces.
    """

    older_traces = True

    def __init__(self, *, progress: bool = True) -> None:
        super().__init__(progress=progress)
        self.ahead: Ahead | None = None
        self.stored: dict[str, Any] = {}  # the window that a checkpoint holds
        self.sampler_policy: Policy | None = None
        self.threads: ThreadPoolExecutor | None = None
        self.given_up = False

    @override
    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            check_ahead(trainer, pl_module.method)
            self.ahead, self.sampler_policy, self.stored = None, None, {}

    @override
    def fill_window(self, trainer: Trainer, pl_module: Any, prompts: Prompts, position: int) -> list[Prompts]:
        """The window's micro-batches with the rollouts sampled before; sampling begins for the next."""
        method: Method = pl_module.method
        self.surplus.begin(position, position + prompts.window.size * prompts.window.epochs)
        started = time.perf_counter()
        sampled = self.take(trainer, method, prompts, position)
        pl_module.log("rollout/seconds_waited", time.perf_counter() - started, batch_size=len(prompts))
        steps = self.sampler_policy is not None or steps_within(trainer, prompts.window)
        with trainer.precision_plugin.forward_context():
            if self.sampler_policy is None:
                score_window(method, sampled.micro_batches, steps=steps)
            else:
                score_with_other_models(method, sampled.micro_batches, steps=True)
            window = self.apply_window_parts(trainer, pl_module, sampled.micro_batches, position, steps=steps)
        self.log_sampling(pl_module, sampled, len(prompts))
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        next_prompts, following = data.next_window(position)
        self.begin(trainer, method, next_prompts.to(prompts.prompt_ids.device), following)
        return window

    def take(self, trainer: Trainer, method: Method, prompts: Prompts, position: int) -> SampledWindow:
        """The window's micro-batches with their rollouts, waited for if need be."""
        if self.stored:
            self.restore(trainer, method, prompts, position)
        if self.ahead is None or self.ahead.position != position:
            self.begin(trainer, method, prompts, position)
        assert self.ahead is not None
        return self.finish(trainer, method, self.ahead)

    def finish(self, trainer: Trainer, method: Method, ahead: Ahead) -> SampledWindow:
        """The sampled window; its signals are measured by the policy that wrote it."""
        sampled = ahead.window.result()
        if not ahead.measured:
            with trainer.precision_plugin.forward_context():
                measure_signals(method, sampled.micro_batches, self.sampler_policy)
        ahead.measured = True
        return sampled

    def begin(self, trainer: Trainer, method: Method, prompts: Prompts, position: int) -> None:
        """Sample a window in the background, with the weights as they are now."""
        self.wait()
        if method.engine.own_weights:
            method.engine.send(method.policy)
        elif self.sampler_policy is None:
            self.sampler_policy = snapshot(method.policy)
        else:
            copy_from(self.sampler_policy, method.policy)
        seed = counter_seed(run_seed(), 0, position, stream="rollout")
        self.threads = self.threads or ThreadPoolExecutor(1, thread_name_prefix="next window")
        self.given_up = False
        share = share_at(trainer, method, position)
        self.ahead = Ahead(position, self.threads.submit(self.draw, trainer, method, prompts, seed, share))

    def draw(self, trainer: Trainer, method: Method, prompts: Prompts, seed: int, share: float) -> SampledWindow:
        """Sample a window and score it with the policy that wrote it; runs in the background.

        It touches nothing that training changes. Other models score in the foreground: one may be the policy itself
        without its adapter, and one may follow it.
        """
        precision = trainer.precision_plugin  # only autocasting is of this thread alone; default dtypes are of all
        with precision.forward_context() if isinstance(precision, MixedPrecision) else nullcontext():
            sampled = sample_window(method, prompts, seed, self.sampler_policy, self.go_on, share)
            if self.sampler_policy is not None:
                score_with_policy(method, sampled.micro_batches, self.sampler_policy, steps=True)
        return sampled

    def go_on(self, *progress: int) -> None:
        """Called as tokens are written in the background."""
        if self.given_up:
            raise RuntimeError("The run has ended.")

    def wait(self) -> None:
        """Let the background finish."""
        if self.ahead is not None:
            wait([self.ahead.window])

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.wait()  # validation samples too, and an engine may serve one policy at a time

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.wait()  # a checkpoint may still be saved
        if self.threads is not None:
            self.threads.shutdown()
            self.threads = None

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.given_up = True

    # Checkpoints

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the window that is being sampled, of every process."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        ahead = self.ahead
        if ahead is None:
            return
        error, window = ahead.window.exception(), None  # waits
        if error is None:
            window = [to_state(batch) for batch in self.finish(trainer, pl_module.method, ahead).micro_batches]
        else:
            log.warning("the checkpoint holds no window sampled ahead, because sampling failed: %s", error)
        checkpoint[KEY] = {"position": ahead.position, "windows": gather_objects(window)}

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        self.stored = checkpoint.get(KEY, {})

    def restore(self, trainer: Trainer, method: Method, prompts: Prompts, position: int) -> None:
        """Use the window of the checkpoint, if it is the next one and would be sampled alike."""
        state, self.stored = self.stored, {}
        windows = state["windows"]
        mine = windows[trainer.global_rank] if len(windows) == trainer.world_size else None
        window = prompts.micro_batches()
        for batch, entry in zip(window, mine or [], strict=False):
            restore_state(batch, entry)
        if state["position"] != position or not all(fits(method, batch) for batch in window):
            log.warning(
                "The window in the checkpoint cannot be used: there is none, or it was sampled with another group "
                "size, correction or number of processes. The first window is sampled anew, with the weights of now."
            )
            return
        future: Future[SampledWindow] = Future()
        future.set_result(SampledWindow(window))
        self.ahead = Ahead(position, future, measured=True)
        if not method.engine.own_weights:
            self.sampler_policy = snapshot(method.policy)


def fits(method: Method, batch: Prompts) -> bool:
    """True if a checkpoint's rollouts are as they would be sampled now."""
    rollouts = batch.rollouts
    if rollouts is None or (rollouts.sampling_logprobs is None) == method.needs_sampling_logprobs:
        return False
    return len(rollouts) == len(batch) * method.sampling.group_size
