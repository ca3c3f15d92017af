"""What has to see a whole window before its first step: group filters, refilling, and advantages over the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from nrt_lightning.advantages import AdvantageEstimator
from nrt_lightning.filters import GroupFilter, Groups, apply_filters
from nrt_lightning.functional import pack_segment
from nrt_lightning.rollouts.joining import concat_groups, singles
from nrt_lightning.structures import Judgement, Prompts, Rollouts, Sampling, Scores

Further = Callable[[Prompts, int, int], list[Prompts]]  # rows like this micro-batch, so many, in this round


class Judge(Protocol):
    """What judges the rollouts of a window: these parts of `NRTModule`."""

    advantage: AdvantageEstimator
    filters: list[GroupFilter]
    sampling: Sampling

    @property
    def global_rank(self) -> int:
        """The number of this process."""

    def judge(self, rollouts: Rollouts, scores: Scores) -> Judgement:
        """Rewards and advantages."""

    def largest(self, count: int) -> int:
        """The largest of a number on all processes."""

    def all_gather(self, data: Any) -> Any:
        """The tensors of all processes, stacked; the tensor itself where there is one process."""

    def log_scalars(self, values: dict[str, Tensor], prefix: str, batch_size: int) -> None:
        """Log means over processes."""


def judge_window(module: Judge, window: list[Prompts], further: Further) -> list[Prompts]:
    """The window with filtered groups replaced or without a loss, and with advantages over the batch.

    Args:
        module: says what rollouts are worth, and how they are filtered.
        window: scored micro-batches.
        further: gives scored micro-batches of other rows.
    """
    if module.filters:
        window = filtered(module, window, further)
    if module.advantage.needs_batch:
        normalize(module, window)
    return window


def filtered(module: Judge, window: list[Prompts], further: Further) -> list[Prompts]:
    """The window after its filters; every row says whether it carries a loss.

    What is filtered is replaced by groups of further rows, for at most `sampling.refill_rounds` rounds. The rows are
    drawn by a hash of the place in the run. New traces for the same question would choose among a question's traces by
    their rewards; the rows that come next would tie the place in the data to the rewards. So, what is kept is
    distributed as under dynamic sampling, the order of the micro-batches is what it was, nothing is stored, and a
    resumed run refills alike. Every process draws as many rows as the one that lacks most, to stay in step with it,
    and leaves aside what it has too many.
    """
    sieve, rounds, replaced = WindowFilter(module), 0, 0
    kept, groups = sieve(window), singles(window)
    while rounds < module.sampling.refill_rounds and (missing := module.largest(kept.count(False))):
        rounds += 1
        more = further(window[0], missing, rounds)
        fresh = [group for group, fine in zip(singles(more), sieve(more), strict=True) if fine]
        places = [place for place, fine in enumerate(kept) if not fine]
        for place, group in zip(places, fresh, strict=False):
            groups[place], kept[place] = group, True
            replaced += 1
    size = len(window[0])
    if replaced:
        window = [concat_groups(groups[start : start + size]) for start in range(0, len(groups), size)]
    for number, share in enumerate(window):
        rollouts = rollouts_in(share)
        fine = torch.tensor(kept[number * size : number * size + len(share)], device=rollouts.group_ids.device)  # [B]
        rollouts.learned = fine[rollouts.group_ids]
    module.log_scalars(sieve.finished(), "train", len(kept))
    lost = {"groups_without_loss": torch.tensor(kept.count(False) / len(kept))}
    module.log_scalars(lost, "train", len(kept))
    refilled = {"refill_rounds": torch.tensor(float(rounds)), "refilled_groups": torch.tensor(float(replaced))}
    module.log_scalars(refilled, "rollout", len(kept))
    return window


class WindowFilter:
    """The module's filters, for the groups of one window and of those that replace some of them."""

    def __init__(self, module: Judge) -> None:
        self.module = module
        self.measured: list[list[Tensor]] = []  # of every filter, of all processes, [G] in each round
        self.dropped: list[list[Tensor]] = []

    def __call__(self, shares: list[Prompts]) -> list[bool]:
        """Whether to keep each group of these micro-batches."""
        seen = [groups_of(self.module, rollouts_in(share)) for share in shares]
        measured = [self.gather(torch.cat([filter_.measure(g) for g in seen])) for filter_ in self.module.filters]
        dropped = apply_filters(self.module.filters, [values.flatten() for values in measured])
        self.measured.append([values.flatten() for values in measured])
        self.dropped.append(dropped)
        kept = ~torch.stack(dropped).any(dim=0)  # of all processes
        return kept.view_as(measured[0])[self.module.global_rank].tolist()

    def gather(self, values: Tensor) -> Tensor:
        """The values of all processes, [G] -> [processes, G]."""
        return self.module.all_gather(values).view(-1, len(values))

    def finished(self) -> dict[str, Tensor]:
        """Let the filters take note of all groups; the share of them that each dropped, to log."""
        logs = {}
        total = torch.zeros(())
        for number, filter_ in enumerate(self.module.filters):
            filter_.observe(torch.cat([values[number] for values in self.measured]))
            share = torch.cat([dropped[number] for dropped in self.dropped]).float().mean()
            logs[f"filtered_{filter_.name}"], total = share, total.to(share) + share
        return logs | {"filtered_groups": total}


@torch.no_grad()
def normalize(module: Judge, window: list[Prompts]) -> None:
    """Find the advantages over the window of all processes, without filtered groups."""
    judged = [module.judge(rollouts_in(share), noted(rollouts_in(share))) for share in window]
    values = torch.cat([judgement.reward.value for judgement in judged])  # [N]
    learned = [rollouts_in(share).learned for share in window]
    if module.filters:
        values = values.where(torch.cat([rows for rows in learned if rows is not None]), torch.nan)  # left out
    baselines = [judgement.baseline for judgement in judged if judgement.baseline is not None]
    starts = range(0, len(window) * len(window[0]), len(window[0]))
    ids = torch.cat([rollouts_in(share).group_ids + start for share, start in zip(window, starts, strict=True)])  # [N]

    def everywhere(tensor: Tensor) -> Tensor:  # [N] -> [processes, N]
        return module.all_gather(tensor).view(-1, len(values))

    all_ids = everywhere(ids)
    all_ids = all_ids + torch.arange(len(all_ids), device=ids.device).unsqueeze(1) * (int(ids.max()) + 1)
    baseline = everywhere(torch.cat(baselines)).flatten() if baselines else None
    advantages = module.advantage(everywhere(values).flatten(), all_ids.flatten(), baseline)
    own = advantages.view_as(all_ids)[module.global_rank]  # [N]
    sizes = [len(rollouts_in(share)) for share in window]
    for share, part in zip(window, own.split(sizes), strict=True):
        rollouts_in(share).advantages = part


@torch.no_grad()
def groups_of(module: Judge, rollouts: Rollouts) -> Groups:
    """What filters look at."""
    rewards = module.judge(rollouts, noted(rollouts)).reward.value
    judged = rollouts.judged
    assert judged.old_logprobs is not None, "score the window first"
    rows, width = judged.group_ids, judged.answer_ids.shape[1]
    baseline = None if judged.baseline_logprobs is None else judged.baseline_logprobs[rows]  # [N, T]
    confidences = pack_segment(judged.old_logprobs, judged.segments.answer_mask, width)  # [N, T]
    return Groups(rewards, rows, confidences, judged.answer_mask[rows], baseline)


def noted(rollouts: Rollouts) -> Scores:
    """What was noted when the window was scored."""
    assert rollouts.old_logprobs is not None, "score the window first"
    none = torch.zeros_like(rollouts.old_logprobs)
    return Scores(rollouts.old_logprobs, none, rollouts.judged.baseline_logprobs, rollouts.ref_logprobs)


def rollouts_in(prompts: Prompts) -> Rollouts:
    """The rollouts of a micro-batch that has some."""
    assert prompts.rollouts is not None, "sample first"
    return prompts.rollouts
