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

from nrt_lightning.callbacks.ahead_checks import check_ahead
from nrt_lightning.callbacks.ahead_state import gathered, kept, restored
from nrt_lightning.callbacks.on_policy_rollout import OnPolicyRollout, note
from nrt_lightning.models.policy.policy import Policy
from nrt_lightning.models.policy.snapshot import copy_from, snapshot
from nrt_lightning.randomness import counter_seed, run_seed
from nrt_lightning.rollouts import RolloutEngine
from nrt_lightning.structures import Prompts, Sampling
from nrt_lightning.training.hand_out import measure, shares

log = logging.getLogger(__name__)
KEY = "window_sampled_ahead"  # in a checkpoint


@dataclass
class Ahead:
    """A window that is being sampled, or has been."""

    place: tuple[int, int]  # epoch, and micro-batch within it
    window: Future[list[Prompts]]  # its micro-batches with their rollouts
    measured: bool = False  # its signals are


class AheadRollout(OnPolicyRollout):
    """Samples the traces of the next window in the background while this one is trained.

    The data is off-policy by one window: the traces that window t + 1 learns from are those of the policy at the start
    of window t. That policy is the old one: its log-probs and confidences are noted when it has written the traces,
    and the ratio and its clipping do their work from the first step on. The first window is on-policy.

    An engine that reads the policy's weights gets a second policy to sample from, with a copy of what is trained. An
    engine with weights of its own (`RolloutEngine.own_weights`) is sent those of the window's start, which nobody has
    afterwards: there the old policy is that of the start of the window that is trained, and
    `loss.sampler_correction` leads from what the engine sampled with to it (arXiv 2505.24298 does it so).

    A checkpoint waits for the window that is being sampled and holds its ids and log-probs, so a resumed run equals
    the uninterrupted one.

    Args:
        sampling: how traces are drawn; null for the module's own `sampling`.
        engine: what draws them; null for the module's own `engine`, or the in-process one.
        progress: show progress while filtered groups are replaced; the background shows none.

    Raises:
        InputError: as `OnPolicyRollout`; the data cannot give the next window's prompts early, the engine reads
            weights that are sharded or on a GPU, or the loss does not correct for older traces.
    """

    def __init__(
        self, sampling: Sampling | None = None, engine: RolloutEngine | None = None, progress: bool = True
    ) -> None:
        super().__init__(sampling, engine, progress)
        self.ahead: Ahead | None = None
        self.stored: dict[str, Any] = {}  # the window that a checkpoint holds
        self.double: Policy | None = None
        self.threads: ThreadPoolExecutor | None = None
        self.given_up = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """As `OnPolicyRollout`, and check that the next window can be sampled and learned from."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            check_ahead(trainer, pl_module, self.engine_for(pl_module))
            self.ahead, self.double, self.stored = None, None, {}

    def fill_window(self, trainer: Trainer, pl_module: Any, prompts: Prompts, batch_idx: int) -> list[Prompts]:
        """The window's micro-batches with the rollouts sampled before; sampling begins for the next."""
        place = trainer.current_epoch, batch_idx
        window, waited = self.take(trainer, pl_module, prompts, place)
        with trainer.precision_plugin.forward_context():
            if self.double is None:
                window = self.prepare(trainer, pl_module, window, prompts.window, batch_idx)
            else:
                score_others(pl_module, window)
                window = self.judge(trainer, pl_module, window, batch_idx)
        self.log_sampling(pl_module, len(prompts))
        pl_module.log("rollout/seconds_waited", waited, batch_size=len(prompts))
        self.tokens, self.seconds, self.peak = 0, 0.0, 0
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        following, epoch, micro_batch = data.next_window(*place)
        self.begin(trainer, pl_module, following.to(prompts.prompt_ids.device), (epoch, micro_batch))
        return window

    def take(
        self, trainer: Trainer, pl_module: Any, prompts: Prompts, place: tuple[int, int]
    ) -> tuple[list[Prompts], float]:
        """The window's micro-batches with their rollouts, and the seconds waited for them."""
        if self.stored:
            self.restore(trainer, pl_module, prompts, place)
        if self.ahead is None or self.ahead.place != place:
            self.begin(trainer, pl_module, prompts, place)
        assert self.ahead is not None
        started = time.perf_counter()
        return self.finish(trainer, pl_module, self.ahead), time.perf_counter() - started

    def finish(self, trainer: Trainer, pl_module: Any, ahead: Ahead) -> list[Prompts]:
        """The window's micro-batches with their rollouts, whose signals are measured by the policy that wrote them."""
        window = ahead.window.result()
        with trainer.precision_plugin.forward_context():
            for share in [] if ahead.measured else window:
                measure(pl_module, share, self.double or pl_module.policy)
        ahead.measured = True
        return window

    def begin(self, trainer: Trainer, pl_module: Any, prompts: Prompts, place: tuple[int, int]) -> None:
        """Sample a window in the background, with the weights as they are now."""
        engine, policy = self.engine_for(pl_module), pl_module.policy
        self.wait()
        if engine.own_weights:
            engine.send(policy)
        elif self.double is None:
            self.double = snapshot(policy)
        else:
            copy_from(self.double, policy)
        seed = counter_seed(run_seed(), *place, stream="rollout")
        self.threads = self.threads or ThreadPoolExecutor(1, thread_name_prefix="next window")
        self.given_up = False
        self.ahead = Ahead(place, self.threads.submit(self.draw, trainer, pl_module, prompts, seed))

    def draw(self, trainer: Trainer, pl_module: Any, prompts: Prompts, seed: int) -> list[Prompts]:
        """Write the rollouts of a window, and note what the twin says of them; runs in the background.

        It touches nothing that training changes. Other models are asked in the foreground: one may be the policy
        itself without its adapter, and one may follow it.
        """
        precision = trainer.precision_plugin  # only autocasting is of this thread alone; default dtypes are of all
        with precision.forward_context() if isinstance(precision, MixedPrecision) else nullcontext():
            window = self.write(pl_module, self.double or pl_module.policy, prompts, seed, self.go_on)
            if self.double is not None:
                note_old(pl_module, self.double, window)
        return window

    def go_on(self, *progress: int) -> None:
        """Called as tokens are written in the background."""
        if self.given_up:
            raise RuntimeError("The run has ended.")

    def wait(self) -> None:
        """Let the background finish."""
        if self.ahead is not None:
            wait([self.ahead.window])

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the background finish: validation samples too, and an engine may serve one policy at a time."""
        self.wait()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wait for what was begun: a checkpoint may still be saved."""
        self.wait()
        if self.threads is not None:
            self.threads.shutdown()
            self.threads = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Sample no further."""
        self.given_up = True

    # Checkpoints

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the window that is sampled, of every process."""
        ahead = self.ahead
        if ahead is None:
            return
        error, window = ahead.window.exception(), None  # waits
        if error is None:
            window = [kept(share.rollouts) for share in self.finish(trainer, pl_module, ahead) if share.rollouts]
        else:
            log.warning("the checkpoint holds no window sampled ahead, for sampling failed: %s", error)
        checkpoint[KEY] = {"place": list(ahead.place), "windows": gathered(window)}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the window until its turn comes."""
        self.stored = checkpoint.get(KEY, {})

    def restore(self, trainer: Trainer, pl_module: Any, prompts: Prompts, place: tuple[int, int]) -> None:
        """Take the window of the checkpoint, where it is the one that is next and still asked for alike."""
        state, self.stored = self.stored, {}
        windows = state["windows"]
        mine = windows[trainer.global_rank] if len(windows) == trainer.world_size else None
        window = shares(prompts)
        for share, entry in zip(window, mine or [], strict=False):
            share.rollouts = restored(entry).to(prompts.prompt_ids.device)
        if tuple(state["place"]) != place or not all(self.fits(pl_module, share) for share in window):
            log.warning(
                "The window in the checkpoint cannot be used: there is none, or it was sampled with another group "
                "size, correction or number of processes. The first window is sampled anew, with the weights of now."
            )
            return
        future: Future[list[Prompts]] = Future()
        future.set_result(window)
        self.ahead = Ahead(place, future, measured=True)
        if not self.engine_for(pl_module).own_weights:
            self.double = snapshot(pl_module.policy)

    def fits(self, pl_module: Any, share: Prompts) -> bool:
        """Whether a checkpoint's rollouts are as they would be sampled now."""
        group_size = (self.sampling or pl_module.sampling).group_size
        corrected = getattr(pl_module, "needs_sampling_logprobs", False)
        rollouts = share.rollouts
        if rollouts is None or (rollouts.sampling_logprobs is None) == corrected:
            return False
        return len(rollouts) == len(share) * group_size


def note_old(pl_module: Any, policy: Policy, window: list[Prompts]) -> None:
    """Note what the policy that wrote the rollouts says of them."""
    scorer = getattr(pl_module, "baseline_scorer", None)
    baseline = getattr(pl_module, "needs_baseline", True) and (scorer is None or scorer.from_policy_forward)
    with policy.evaluating():
        for share in window:
            rollouts = share.rollouts
            if rollouts is not None:
                if rollouts.answered is not None:
                    note(rollouts.answered, policy.score(rollouts.answered, baseline=baseline))
                note(rollouts, policy.score(rollouts, baseline=baseline and rollouts.answered is None))


def score_others(pl_module: Any, window: list[Prompts]) -> None:
    """Note what other models say of rollouts: the reference, and one that scores the baseline."""
    with pl_module.policy.evaluating():
        for share in window:
            rollouts = share.rollouts
            if rollouts is not None:
                if getattr(pl_module, "needs_reference", False):
                    rollouts.ref_logprobs = pl_module.reference.logprobs(rollouts)
                if getattr(pl_module, "needs_baseline", False) and not pl_module.baseline_scorer.from_policy_forward:
                    rollouts.judged.baseline_logprobs = pl_module.baseline_scorer.logprobs(rollouts.judged)
