"""Credit for the steps of a trace, by what each adds to the confidence in the answer."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from weakref import WeakSet

import torch
from torch import Tensor

from nrt_lightning.functional import check_at_least, check_fraction, group_statistics
from nrt_lightning.models.policy.policy import Policy
from nrt_lightning.models.scoring.after_steps import answers_after_steps
from nrt_lightning.rollouts.segmentation import EveryTokens, Segmentation
from nrt_lightning.structures import Rollouts, Steps

log = logging.getLogger(__name__)
WARNED: WeakSet[Policy] = WeakSet()  # policies of which it was said that their traces are one step each


@dataclass(frozen=True)
class StepGains:
    """Adds an advantage for each step of a trace to that of the trace: `A_t = trace_coef A + coef A_s`, t in step s.

    The answer's log-prob is read after each step: `v_s = log p(y* | x, z_1..z_s)`, v_0 that after the empty trace. The
    gains `g_s = v_s - v_{s-1}` add up to that of the whole trace. The return of a step is `G_s = sum_{u >= s}
    discount^(u - s) g_u`, and its advantage `(G_s - mean) / std` over all steps of the group (PACR, arXiv 2510.22255;
    MIG, 2602.01034; IGPO, 2510.14967, which differ in what is read and in the normalization). The marker belongs to the
    last step. It costs one forward pass without gradient over prompts, traces and an answer for each step.

    Args:
        segmentation: cuts traces into steps.
        discount: of later gains; 0 counts the step's own gain alone.
        coef: weight of the steps' advantages.
        trace_coef: weight of the trace's advantage.
        max_steps: longer traces have steps of more segments each.
        average: read the mean log-prob of the answer's tokens instead of their sum.

    Raises:
        InputError: a number is out of range.
    """

    segmentation: Segmentation = field(default_factory=EveryTokens)
    discount: float = 0.0
    coef: float = 1.0
    trace_coef: float = 1.0
    max_steps: int = 32
    average: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        check_fraction("step_credit.discount", self.discount)
        check_at_least("step_credit.coef", self.coef, 0)
        check_at_least("step_credit.trace_coef", self.trace_coef, 0)
        check_at_least("step_credit.max_steps", self.max_steps, 1)

    def measure(self, policy: Policy, rollouts: Rollouts) -> Steps:
        """Read the answer after each step, by the policy that wrote the traces."""
        ids, mask = rollouts.completion_ids, rollouts.segments.trace_mask
        ends = [self.cut(row[kept].tolist(), policy) for row, kept in zip(ids, mask, strict=True)]
        found = answers_after_steps(policy, rollouts, [[0, *each] for each in ends])
        width, device = max(1, *(len(each) for each in ends)), ids.device
        if width == 1 and policy not in WARNED:
            WARNED.add(policy)
            log.warning(
                "step_credit: %s cuts none of %d traces, so each is one step. If train/steps stays at "
                "1, choose another segmentation: the credit is that of whole traces.",
                self.segmentation,
                len(ends),
            )
        lengths = rollouts.answer_mask.sum(dim=1)[rollouts.group_ids].tolist() if self.average else [1] * len(ends)
        values = [[value / max(length, 1) for value in row] for row, length in zip(found, lengths, strict=True)]

        def padded(rows: list[list[int]] | list[list[float]], dtype: torch.dtype) -> Tensor:  # [N, S]
            return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=dtype, device=device)

        return Steps(
            ends=padded(ends, torch.long),
            mask=padded([[1] * len(each) for each in ends], torch.bool),
            values=padded([row[1:] for row in values], torch.float32),
            before=torch.tensor([row[0] for row in values], dtype=torch.float32, device=device),
        )

    def cut(self, trace: list[int], policy: Policy) -> list[int]:
        """The ends of at most `max_steps` steps."""
        ends = self.segmentation.ends(trace, policy.tokenizer)
        if len(ends) <= self.max_steps:
            return ends
        return [ends[(number + 1) * len(ends) // self.max_steps - 1] for number in range(self.max_steps)]

    def returns(self, steps: Steps) -> Tensor:
        """The discounted sum of the gains of each step and the later ones. `[N, S]`"""
        gains = steps.gains  # [N, S]
        total, found = torch.zeros_like(steps.before), []
        for step in reversed(range(gains.shape[1])):
            total = gains[:, step] + self.discount * total
            found.append(total)
        return torch.stack(found[::-1], dim=1)

    def __call__(self, advantages: Tensor, rollouts: Rollouts, width: int) -> Tensor:
        """The advantages of tokens.

        Args:
            advantages: `[N]` of the traces.
            rollouts: N of them, with steps.
            width: columns C of the result.

        Returns:
            `[N, C]`, 0 behind trace and marker.
        """
        steps = rollouts.steps
        assert steps is not None, "measure the steps first"
        returns, groups = self.returns(steps), rollouts.group_ids.unsqueeze(1).expand_as(steps.mask)
        usable = steps.mask & returns.isfinite()  # [N, S]
        stats = group_statistics(returns[usable], groups[usable])
        scaled = torch.where(stats.std > 0, stats.centered / torch.where(stats.std > 0, stats.std, 1), 0)
        of_steps = torch.zeros_like(returns).masked_scatter(usable, scaled.to(returns.dtype))  # [N, S]
        column = torch.arange(width, device=returns.device)
        past = (column.unsqueeze(1) >= steps.ends.unsqueeze(1)) & steps.mask.unsqueeze(1)  # [N, C, S]
        step = past.sum(dim=2)  # [N, C]
        last = (steps.mask.sum(dim=1, keepdim=True) - 1).clamp(min=0)
        by_token = of_steps.gather(1, torch.minimum(step, last))  # [N, C]
        own = rollouts.segments.trace_mask.sum(dim=1) + rollouts.segments.marker_mask.sum(dim=1)  # [N]
        by_token = torch.where(column < own.unsqueeze(1), by_token, 0)
        return self.trace_coef * advantages.unsqueeze(1) + self.coef * by_token
