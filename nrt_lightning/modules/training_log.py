"""What `NRTModule` logs of a training step, and gives to callbacks."""

from __future__ import annotations

from lightning.pytorch import Callback
from torch import Tensor

from nrt_lightning.callbacks.on_policy_rollout import OnPolicyRollout, steps_within
from nrt_lightning.functional import pack_segment
from nrt_lightning.modules.token_budget import BudgetedModule
from nrt_lightning.structures import Prompts
from nrt_lightning.training.logs import training_scalars
from nrt_lightning.training.micro_batches import Step

OF_RATIOS = ("ratio_mean", "ratio_max", "clip_share")  # 1, 1 and 0 on-policy
OF_GROUPS = ("reward_group_std", "zero_variance_groups", "unique_traces")  # 0, 1 and 1 in groups of one


class TrainingLog(BudgetedModule):
    """A module with a method, whose training steps are logged."""

    def still_values(self, batch: Prompts) -> set[str]:
        """Values that cannot move in this configuration: ratios on-policy, centered means, spread in groups of one."""
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        older = any(isinstance(callback, OnPolicyRollout) and callback.older_traces for callback in callbacks)
        names: set[str] = set() if older or steps_within(self.trainer, batch.window) else {*OF_RATIOS}
        if self.method.advantage.centered:
            names.add("advantage_mean")
        return names if self.method.sampling.group_size > 1 else names | {*OF_GROUPS}

    def log_training(self, batch: Prompts, step: Step) -> None:
        """Log the rewards, signals and losses of a batch under `train/`, and its traces under `rollout/`."""
        rollouts, reward = batch.sampled, step.credit.reward
        scalars, traces = training_scalars(self.method, batch, step)
        still = self.still_values(batch)
        self.log_scalars(scalars, "train", len(rollouts), still)
        self.log_scalars(traces, "rollout", len(rollouts), still)
        worth = "reward" if reward.baseline is None else "gain"
        bar = {worth: scalars[worth], "marker": traces["marker_rate"], "trace": traces["trace_tokens"]}
        values = {name: scalar.value for name, scalar in bar.items()}
        self.log_dict(values, prog_bar=True, logger=False, batch_size=len(rollouts))
        self.log_throughput(batch.trained.segments.completion_mask.sum() + rollouts.prompt_mask.sum())

    def outputs(self, batch: Prompts, step: Step) -> dict[str, Tensor]:
        """What a training step returns: the loss, and for callbacks what is known of its N rollouts, detached.

        `reward` and `advantages`; `reward_baseline` [N], `answer_logprobs` [N, T] of the reference answers after the
        traces and `baseline_logprobs` [B, T] after the empty trace, where they were computed.
        """
        rollouts, reward = batch.sampled, step.credit.reward
        found = {"loss": step.loss, "reward": reward.value, "advantages": step.credit.advantages}
        if reward.baseline is not None:
            found["reward_baseline"] = reward.baseline
        scores = rollouts.old_scores or (step.scores if batch.responses is None else None)
        if scores is not None:
            width = rollouts.answer_ids.shape[1]
            found["answer_logprobs"] = pack_segment(scores.logprobs.detach(), rollouts.segments.answer_mask, width)
            if scores.baseline_logprobs is not None:
                found["baseline_logprobs"] = scores.baseline_logprobs
        return found
