"""On-policy rollouts: the batch of questions becomes a batch of sampled traces before the training step sees it."""

from __future__ import annotations

import dataclasses
import math
import time
from contextlib import nullcontext
from functools import partial
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from nrt_lightning.callbacks.generation_progress import generation_progress
from nrt_lightning.errors import InputError
from nrt_lightning.models.policy.policy import Policy
from nrt_lightning.models.sharding.memory import peak_memory, reset_peak_memory
from nrt_lightning.randomness import counter_seed, run_seed
from nrt_lightning.rollouts import Progress, RolloutEngine, TransformersEngine, trace_request, write_own_answers
from nrt_lightning.structures import Prompts, Rollouts, Sampling, Scores, WindowStep
from nrt_lightning.training.hand_out import complete, hand_out, measure


class OnPolicyRollout(Callback):
    """Samples K traces for every prompt and puts the assembled rollouts into the batch, in place.

    A batch of type `Prompts` carries the prompts of a whole window. At the window's first micro-batch traces are
    sampled for all of them; every micro-batch then gets its share, once in each of the window's epochs. Where the
    optimizer steps at most once in a window the data is on-policy, and the training forward's own log-probs serve as
    the old ones; where it steps more often, or the module has parts that look at the whole window (group filters), the
    window is scored before its first step.

    `NRTModule` adds this callback by itself. In a LightningModule of your own, give it `policy` (a `Policy`) and pass
    `sampling` here.

    Args:
        sampling: how traces are drawn; null for the module's own `sampling`.
        engine: what draws them; null for the module's own `engine`, or the in-process one.
        progress: show progress while it generates.

    Raises:
        InputError: the module has no policy or sampling, the window does not fit `accumulate_grad_batches`, or it is
            to be refilled and the data cannot give further rows.
    """

    def __init__(
        self, sampling: Sampling | None = None, engine: RolloutEngine | None = None, progress: bool = True
    ) -> None:
        self.sampling = sampling
        self.engine = engine
        self.progress = progress
        self.window: list[Prompts] = []
        self.tokens, self.seconds, self.peak = 0, 0.0, 0  # of the sampling for the window

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
        if self.engine is not None:
            check_engine(self.engine, pl_module)
        data = getattr(trainer, "datamodule", None)
        on_policy(getattr(data, "window", 1), trainer.accumulate_grad_batches, getattr(data, "window_epochs", 1))
        sampling: Any = self.sampling or pl_module.sampling
        if sampling.refill_rounds and not hasattr(data, "replacement_rows"):
            raise InputError(
                f"sampling.refill_rounds is {sampling.refill_rounds}, but the data cannot give further rows. Use "
                "QADataModule, give your datamodule a method `replacement_rows` like its, or set refill_rounds to 0."
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Fill the batch."""
        if not isinstance(batch, Prompts):
            raise InputError(
                f"OnPolicyRollout got a batch of type {type(batch).__name__}; it needs Prompts. Yield them from the "
                "dataloader (QADataModule does), or make them in on_before_batch_transfer with a PromptEncoder."
            )
        if batch.window.first:
            self.window = self.fill_window(trainer, pl_module, batch, batch_idx)
        elif len(self.window) != batch.window.size:
            raise RuntimeError("The run begins in the middle of a window; resume from a checkpoint at a window's end.")
        share = self.window[batch.window.index]
        for field in dataclasses.fields(batch):
            setattr(batch, field.name, getattr(share, field.name))

    def fill_window(self, trainer: Trainer, pl_module: Any, prompts: Prompts, batch_idx: int) -> list[Prompts]:
        """The window's micro-batches with their rollouts, scored and judged where that must come before the steps."""
        self.tokens, self.seconds, self.peak = 0, 0.0, 0
        with trainer.precision_plugin.forward_context():
            window = self.sample(trainer, pl_module, prompts, batch_idx, "rollout")
            window = self.prepare(trainer, pl_module, window, prompts.window, batch_idx)
        self.log_sampling(pl_module, len(prompts))
        return window

    def prepare(
        self, trainer: Trainer, pl_module: Any, window: list[Prompts], place: WindowStep, batch_idx: int
    ) -> list[Prompts]:
        """The window after what must come before its first step."""
        whole = getattr(pl_module, "needs_window", False)
        steps = not on_policy(place.size, trainer.accumulate_grad_batches, place.epochs)
        if whole or steps or getattr(pl_module, "train_response", False):
            score_window(pl_module, window, only_answers=not (whole or steps))
        return self.judge(trainer, pl_module, window, batch_idx)

    def judge(self, trainer: Trainer, pl_module: Any, window: list[Prompts], batch_idx: int) -> list[Prompts]:
        """The scored window after the module's parts that look at all of it."""
        if not getattr(pl_module, "needs_window", False):
            return window
        return pl_module.judge_window(window, partial(self.further, trainer, pl_module, batch_idx))

    def log_sampling(self, pl_module: Any, prompts: int) -> None:
        """Log how fast the window was sampled, and how much memory that took."""
        pl_module.log("rollout/tokens_per_second", self.tokens / max(self.seconds, 1e-9), batch_size=prompts)
        pl_module.log("rollout/seconds", self.seconds, batch_size=prompts)
        pl_module.log("rollout/peak_memory_mib", self.peak / 2**20, batch_size=prompts)

    def further(
        self, trainer: Trainer, pl_module: Any, batch_idx: int, like: Prompts, count: int, number: int
    ) -> list[Prompts]:
        """Scored rollouts of further rows, in micro-batches no larger than the window's, for one round of refilling.

        Args:
            trainer: the trainer.
            pl_module: the module.
            batch_idx: of the window's first micro-batch.
            like: a micro-batch of the window.
            count: rows.
            number: of the round.
        """
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        prompts = data.replacement_rows(count, trainer.current_epoch, batch_idx, number).to(like.prompt_ids.device)
        prompts.window = WindowStep(0, math.ceil(count / len(like)))
        more = self.sample(trainer, pl_module, prompts, batch_idx, f"refill {number}")
        score_window(pl_module, more)
        return more

    def sample(self, trainer: Trainer, pl_module: Any, prompts: Prompts, batch_idx: int, stream: str) -> list[Prompts]:
        """Micro-batches of these prompts with their rollouts."""
        seed = counter_seed(run_seed(), trainer.current_epoch, batch_idx, stream=stream)
        self.engine_for(pl_module).send(pl_module.policy)  # a sharded policy's weights: all processes together
        with generation_progress(trainer, enabled=self.progress) as progress:
            window = self.write(pl_module, pl_module.policy, prompts, seed, progress)
        for share in window:
            measure(pl_module, share, pl_module.policy)
        return window

    def write(
        self, pl_module: Any, policy: Policy, prompts: Prompts, seed: int, progress: Progress | None
    ) -> list[Prompts]:
        """Micro-batches of these prompts with the rollouts that a policy writes."""
        sampling, engine = self.sampling or pl_module.sampling, self.engine_for(pl_module)
        request = trace_request(policy, prompts, sampling, seed)
        request.logprobs = getattr(pl_module, "needs_sampling_logprobs", False)
        started, own = time.perf_counter(), None
        reset_peak_memory(policy.device)
        # An engine with weights of its own needs none here, and processes must not talk to one another in a thread.
        with nullcontext() if engine.own_weights else policy.gathered():
            traces = engine.generate(policy, request, progress)
            if getattr(pl_module, "needs_own_answers", False):
                own = write_own_answers(policy, engine, prompts, traces, sampling, seed + 1)
        self.peak = max(self.peak, peak_memory(policy.device))
        self.seconds += time.perf_counter() - started
        self.tokens += int(traces.token_mask.sum())
        window = hand_out(prompts, traces, policy.marker_id, own)
        for share in window:
            complete(pl_module, share)
        return window

    def engine_for(self, pl_module: Any) -> RolloutEngine:
        """What draws the traces."""
        return self.engine or getattr(pl_module, "engine", None) or TransformersEngine()


def check_engine(engine: RolloutEngine, module: Any) -> None:
    """Refuse an engine of the callback's own that cannot serve the policy, or that nobody corrects for."""
    engine.check(module.policy)
    if engine.sampler_correction is not None and getattr(getattr(module, "loss", 0), "sampler_correction", 0) is None:
        raise InputError(
            f"OnPolicyRollout.engine {type(engine).__name__} samples with weights of its own, and "
            "loss.sampler_correction is null. Set it to TruncatedImportance, or that of the engine to null, too."
        )


def on_policy(window: int, accumulate: int, epochs: int = 1) -> bool:
    """Whether the optimizer steps at most once in a window, in all its epochs.

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


def score_window(module: Any, window: list[Prompts], only_answers: bool = False) -> None:
    """Note what the models say of a window before the first optimizer step changes the weights.

    A module of your own without a method `score` has its policy's log-probs noted, and the baseline's.

    Args:
        module: with the old policy, still.
        window: its micro-batches.
        only_answers: of responses score only the reference answers, which give the reward: on-policy the training
            forward's own log-probs of the responses serve.
    """
    policy: Policy = module.policy
    score = getattr(module, "score", None) or partial(policy.score, baseline=True)
    with policy.evaluating():
        for prompts in window:
            rollouts = prompts.rollouts
            if rollouts is not None:
                if rollouts.answered is not None:
                    note(rollouts.answered, module.score_answers(rollouts.answered))
                if not only_answers:
                    note(rollouts, score(rollouts))


def note(rollouts: Rollouts, scores: Scores) -> None:
    """Keep with the rollouts what the old policy and the other models say of them."""
    rollouts.old_logprobs = scores.logprobs
    rollouts.baseline_logprobs = scores.baseline_logprobs
    rollouts.ref_logprobs = scores.ref_logprobs
