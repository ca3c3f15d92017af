"""Watches for collapse while a policy learns to reason."""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from nrt_lightning.callbacks.collapse.actions import CollapseAction
from nrt_lightning.callbacks.collapse.signs import CollapseSign, default_signs
from nrt_lightning.callbacks.collapse.vitals import Vitals, take_vitals
from nrt_lightning.callbacks.on_policy_rollout import OnPolicyRollout
from nrt_lightning.errors import InputError
from nrt_lightning.rollouts import PromptAndTrace, first_traces
from nrt_lightning.structures import Rollouts

log = logging.getLogger(__name__)


class CollapseDetector(Callback):
    """Looks at traces and their worth every few steps, and acts when signs of collapse persist.

    A look measures the gain of traces over no trace, their dependence on the prompt, length, entropy, variety and the
    marker rate, and logs them under `collapse/`. `signs` judge them. When looks show signs `patience` times in a row,
    it warns, does what `actions` say and begins to count anew. All processes look together and act alike.

    A look scores at most `prompts` groups of the batch and `prompts` traces after `prompts` prompts each, without
    gradient: on the quickstart a fifth of a training step.

    Args:
        every_n_steps: optimizer steps between two looks.
        patience: looks in a row with a sign that make an alarm.
        signs: what to look for; null for one of each: EmptyTraces, TemplateTraces, LostGain, WorthlessCertainty and
            LostMarker.
        actions: what to do at an alarm beside the warning, in this order: StopTraining, LowerLearningRate,
            RestoreCheckpoint or others; null for nothing.
        prompts: most prompts of a look; the most recent ones, for a micro-batch may hold only one.

    Raises:
        InputError: a number is too small, or the run makes no rollouts.

    Example:
        >>> from nrt_lightning import LowerLearningRate, RestoreCheckpoint
        >>> detector = CollapseDetector(patience=2, actions=[LowerLearningRate(0.3), RestoreCheckpoint()])
        >>> len(detector.signs)
        5
    """

    def __init__(
        self,
        every_n_steps: int = 10,
        patience: int = 3,
        signs: list[CollapseSign] | None = None,
        actions: list[CollapseAction] | None = None,
        prompts: int = 8,
    ) -> None:
        for name, value, least in (
            ("every_n_steps", every_n_steps, 1),
            ("patience", patience, 1),
            ("prompts", prompts, 2),
        ):
            if value < least:
                raise InputError(f"CollapseDetector: {name} is {value}; give {least} or more.")
        self.every_n_steps = every_n_steps
        self.patience = patience
        self.signs = default_signs() if signs is None else signs
        self.actions = actions or []
        self.prompts = prompts
        self.recent: deque[PromptAndTrace] = deque(maxlen=prompts)
        self.past: list[Vitals] = []
        self.seen = 0  # looks in a row that showed a sign

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that there will be rollouts to look at."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        rollouts = any(isinstance(callback, OnPolicyRollout) for callback in callbacks)
        if stage == "fit" and not (rollouts and hasattr(pl_module, "policy")):
            raise InputError(
                f"CollapseDetector looks at sampled traces, and {type(pl_module).__name__} samples none: use it with "
                "NRTModule or with OnPolicyRollout, or take it out of trainer.callbacks."
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look, where a look is due and the optimizer has just stepped at a window's end."""
        self.recent.extend(first_traces(batch.rollouts))
        window = getattr(getattr(trainer, "datamodule", None), "window", 1)
        at_end = (batch_idx + 1) % window == 0 and (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        last = self.past[-1].step if self.past else 0
        if at_end and trainer.global_step - last >= self.every_n_steps and len(self.recent) > 1:
            self.judge(trainer, pl_module, self.look(trainer, pl_module, batch))

    def look(self, trainer: Trainer, pl_module: Any, batch: Any) -> Vitals:
        """Vitals of all processes together."""
        rollouts = first_groups(batch.rollouts, self.prompts)
        with trainer.precision_plugin.forward_context():
            mine = take_vitals(pl_module.policy, rollouts, list(self.recent), trainer.global_step)
        values = torch.tensor(dataclasses.astuple(mine), device=pl_module.device)
        step, *means = trainer.strategy.reduce(values, reduce_op="mean").tolist()
        vitals = Vitals(int(step), *means)
        measured = dataclasses.asdict(vitals)
        del measured["step"]
        pl_module.log_dict({f"collapse/{name}": value for name, value in measured.items()}, batch_size=1)
        return vitals

    def judge(self, trainer: Trainer, pl_module: LightningModule, now: Vitals) -> None:
        """Count signs, and act when they persist."""
        found = [said for sign in self.signs if (said := sign(now, self.past)) is not None]
        if not found:
            for action in self.actions:
                action.on_well(trainer, pl_module, now, self.past)
        self.past.append(now)
        self.seen = self.seen + 1 if found else 0
        alarm = self.seen == self.patience
        pl_module.log_dict({"collapse/signs": float(len(found)), "collapse/alarm": float(alarm)}, batch_size=1)
        if alarm:
            self.seen = 0
            done = [action(trainer, pl_module) for action in self.actions]
            if trainer.is_global_zero:
                log.warning("collapse at step %d: %s", now.step, "; ".join(found + done))

    def state_dict(self) -> dict[str, Any]:
        """What has been seen, so that a resumed run judges as the uninterrupted one would."""
        return {"past": [dataclasses.asdict(vitals) for vitals in self.past], "seen": self.seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up again."""
        self.past = [Vitals(**vitals) for vitals in state_dict["past"]]
        self.seen = state_dict["seen"]


def first_groups(rollouts: Rollouts, count: int) -> Rollouts:
    """The rollouts of the first `count` prompts."""
    rows = (rollouts.group_ids < count).nonzero().squeeze(-1)
    return rollouts.select(torch.arange(min(count, len(rollouts.prompt_ids)), device=rows.device), rows)
