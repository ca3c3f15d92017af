"""Callback that detects reasoning collapse."""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from nrt_lightning.callbacks.collapse.actions import CollapseAction
from nrt_lightning.callbacks.collapse.answers import WrittenAnswer, finished_rate, first_answers, variety
from nrt_lightning.callbacks.collapse.signs import CollapseSign, default_signs
from nrt_lightning.callbacks.collapse.vitals import Vitals, measure_vitals
from nrt_lightning.callbacks.on_policy_rollout import OnPolicyRollout
from nrt_lightning.callbacks.run_folder import begins
from nrt_lightning.errors import InputError
from nrt_lightning.functional.validation import check_at_least
from nrt_lightning.rollouts import PromptAndTrace, first_traces
from nrt_lightning.strategies import between_windows, gather_objects
from nrt_lightning.structures import Rollouts

log = logging.getLogger(__name__)
KEY, ANSWERS_KEY = "collapse_detector_recent", "collapse_detector_answers"  # in a checkpoint


class CollapseDetector(Callback):
    """Measures the policy's traces regularly, and acts when signs of collapse persist.

    A measurement logs under `collapse/`: the gain of traces over the empty trace, their dependence on the prompt,
    length, entropy, distinctness and marker rate and, where whole responses are trained, how many the policy finishes
    and how much its answers differ. If `signs` find a problem in `patience` measurements in a row, the
    detector logs a warning, runs `actions` and starts counting again. All processes measure together and act alike.

    A measurement scores at most `prompts` groups of the batch, and `prompts` traces after `prompts` prompts each,
    without gradients. On the quickstart this takes a fifth of a training step.

    Args:
        every_n_steps: optimizer steps between two measurements.
        patience: measurements in a row with a sign that raise an alarm.
        signs: signs to look for; null for one of each: EmptyTraces, TemplateTraces, LostGain, WorthlessCertainty,
            LostMarker and, where whole responses are trained, UnfinishedResponses and SameAnswers.
        actions: what to do at an alarm, in this order, in addition to the warning: StopTraining, LowerLearningRate,
            RestoreCheckpoint or others; null for nothing.
        prompts: maximum number of prompts in a measurement. The most recent ones are used, since a micro-batch may hold
            only one.

    Raises:
        InputError: a number is too small, or the run samples no rollouts.

    Example:
        >>> from nrt_lightning import LowerLearningRate, RestoreCheckpoint
        >>> detector = CollapseDetector(patience=2, actions=[LowerLearningRate(0.3), RestoreCheckpoint()])
        >>> len(detector.signs)
        7
    """

    def __init__(
        self,
        every_n_steps: int = 10,
        patience: int = 3,
        signs: list[CollapseSign] | None = None,
        actions: list[CollapseAction] | None = None,
        prompts: int = 8,
    ) -> None:
        check_at_least("CollapseDetector.every_n_steps", every_n_steps, 1)
        check_at_least("CollapseDetector.patience", patience, 1)
        check_at_least("CollapseDetector.prompts", prompts, 2)
        self.every_n_steps = every_n_steps
        self.patience = patience
        self.signs = default_signs() if signs is None else signs
        self.actions = actions or []
        self.prompts = prompts
        self.reset()

    def reset(self) -> None:
        """Forget an earlier run."""
        self.recent: deque[PromptAndTrace] = deque(maxlen=self.prompts)
        self.answers: deque[WrittenAnswer] = deque(maxlen=self.prompts)
        self.past: list[Vitals] = []
        self.alarms: list[int] = []  # optimizer steps at which one was raised
        self.seen = 0  # measurements in a row that showed a sign
        for action in self.actions:
            action.reset()

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if begins(trainer, stage):
            self.reset()
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        if stage == "fit" and not any(isinstance(callback, OnPolicyRollout) for callback in callbacks):
            raise InputError(
                f"CollapseDetector needs sampled traces, but {type(pl_module).__name__} samples none. Use NRTModule or "
                "OnPolicyRollout, or remove the detector from trainer.callbacks."
            )

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch is None:  # skipped
            return
        self.recent.extend(first_traces(batch.rollouts))
        self.answers.extend(first_answers(batch))
        last = self.past[-1].step if self.past else 0
        if (
            between_windows(trainer, batch.window)
            and trainer.global_step - last >= self.every_n_steps
            and len(self.recent) > 1
        ):
            self.evaluate_signs(trainer, pl_module, self.measure(trainer, pl_module, batch))

    def measure(self, trainer: Trainer, pl_module: Any, batch: Any) -> Vitals:
        """Measure and log the vitals, in means over all processes."""
        rollouts = first_groups(batch.rollouts, self.prompts)
        with trainer.precision_plugin.forward_context():
            mine = measure_vitals(pl_module.policy, rollouts, list(self.recent), trainer.global_step)
        if batch.responses is not None:
            mine.finished_rate, mine.answer_variety = finished_rate(batch.rollouts), variety(self.answers)
        values = torch.tensor(dataclasses.astuple(mine), device=pl_module.device)
        step, *means = trainer.strategy.reduce(values, reduce_op="mean").tolist()
        vitals = Vitals(int(step), *means)
        hidden = {"step"} if batch.responses is not None else {"step", "finished_rate", "answer_variety"}
        figures = {f"collapse/{name}": value for name, value in vars(vitals).items() if name not in hidden}
        pl_module.log_dict(figures, batch_size=1)
        return vitals

    def evaluate_signs(self, trainer: Trainer, pl_module: LightningModule, now: Vitals) -> None:
        """Count the measurements with signs, and act when they persist."""
        found = [problem for sign in self.signs if (problem := sign(now, self.past)) is not None]
        if not found:
            for action in self.actions:
                action.on_healthy(trainer, pl_module, now, self.past)
        self.past.append(now)
        self.seen = self.seen + 1 if found else 0
        alarm = self.seen == self.patience
        pl_module.log_dict({"collapse/signs": float(len(found)), "collapse/alarm": float(alarm)}, batch_size=1)
        if alarm:
            self.seen = 0
            self.alarms.append(now.step)
            done = [action(trainer, pl_module) for action in self.actions]
            if trainer.is_global_zero:
                log.warning("collapse at step %d: %s", now.step, "; ".join(found + done))

    @override
    def state_dict(self) -> dict[str, Any]:
        past, actions = [dataclasses.asdict(vitals) for vitals in self.past], [a.state_dict() for a in self.actions]
        return {"past": past, "seen": self.seen, "alarms": list(self.alarms), "actions": actions}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.past = [Vitals(**vitals) for vitals in state_dict["past"]]
        self.seen, self.alarms = state_dict["seen"], list(state_dict.get("alarms", []))
        for action, state in zip(self.actions, state_dict.get("actions", []), strict=False):
            if state:
                action.load_state_dict(state)

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the newest prompts and traces of every process."""
        checkpoint[KEY] = gather_objects([(pair.prompt_ids.cpu(), pair.trace_ids.cpu()) for pair in self.recent])
        checkpoint[ANSWERS_KEY] = gather_objects([tuple(answer) for answer in self.answers])

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        of_processes = checkpoint.get(KEY, [])
        if len(of_processes) == trainer.world_size:
            pairs = of_processes[trainer.global_rank]
            self.recent.clear()
            self.recent.extend(PromptAndTrace(*pair) for pair in pairs)
            self.answers.clear()
            self.answers.extend(WrittenAnswer(*answer) for answer in checkpoint[ANSWERS_KEY][trainer.global_rank])

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for action in self.actions:
            action.on_start(trainer)
        self.recent = deque((moved(pair, pl_module.device) for pair in self.recent), maxlen=self.prompts)


def moved(pair: PromptAndTrace, device: torch.device) -> PromptAndTrace:
    """The pair on a device."""
    return PromptAndTrace(pair.prompt_ids.to(device), pair.trace_ids.to(device))


def first_groups(rollouts: Rollouts, count: int) -> Rollouts:
    """The rollouts of the first `count` prompts."""
    rows = (rollouts.group_ids < count).nonzero().squeeze(-1)
    return rollouts.select(torch.arange(min(count, len(rollouts.prompt_ids)), device=rows.device), rows)
