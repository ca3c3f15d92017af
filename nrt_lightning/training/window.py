"""What reads a whole window before its first step: group filters, replacement of groups, advantages over the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nrt_lightning.filters import Groups, apply_filters
from nrt_lightning.filters.base import measure_groups, names_of
from nrt_lightning.functional import pack_segment
from nrt_lightning.rollouts.joining import concat_groups, singles
from nrt_lightning.strategies import Processes
from nrt_lightning.structures import Credit, Prompts
from nrt_lightning.training.method import Method
from nrt_lightning.training.parts import advantages_by

MoreRows = Callable[[Prompts, int, int], list[Prompts]]  # rows like this micro-batch, their number, the round


@dataclass
class AppliedWindow:
    """A window with its credit, and scalars to log."""

    micro_batches: list[Prompts]
    train: dict[str, Tensor] = field(default_factory=dict)  # fractions of the window's groups
    rollout: dict[str, Tensor] = field(default_factory=dict)  # counts
    surplus: list[Prompts] = field(default_factory=list)  # groups that passed the filters when the window was full


@torch.no_grad()
def apply_window_parts(
    method: Method, window: list[Prompts], more_rows: MoreRows, processes: Processes
) -> AppliedWindow:
    """Assign the credit of a window: filter and replace its groups, and compute advantages over the batch.

    Args:
        method: with filters and advantage.
        window: scored micro-batches.
        more_rows: returns scored micro-batches of other rows.
        processes: that filter and normalize together.
    """
    assign_credit(method, window)
    applied = filter_groups(method, window, more_rows, processes) if method.filters else AppliedWindow(window)
    if method.advantage.needs_batch:
        normalize_over_batch(method, applied.micro_batches, processes)
    if method.filters:  # only now: masked traces count in the statistics of their group
        for batch in applied.micro_batches:
            credit, unmasked = credit_of(batch), method.loss_rows(batch.trained)
            if unmasked is not None and credit.loss_rows is not None:
                credit.loss_rows = credit.loss_rows & unmasked
    return applied


def assign_credit(method: Method, window: list[Prompts]) -> None:
    """Store the credit of every micro-batch with what is trained."""
    for batch in window:
        batch.trained.credit = method.assign_credit(batch)


def credit_of(batch: Prompts) -> Credit:
    """The credit of a micro-batch of a window."""
    assert batch.trained.credit is not None, "assign credit first"
    return batch.trained.credit


def filter_groups(method: Method, window: list[Prompts], more_rows: MoreRows, processes: Processes) -> AppliedWindow:
    """The window after its filters: dropped groups are replaced, or their rows carry no loss.

    Groups are replaced by groups of other rows, in at most `sampling.refill_rounds` rounds. These rows are sampled by a
    hash of the position in the run: resampling the same question would bias its traces toward rewarded ones, and taking
    the next rows would make the data position depend on rewards. So kept groups are distributed as under dynamic
    sampling, nothing is stored, and a resumed run refills alike. All processes request the same number of rows, the
    largest shortfall; the surplus is discarded, or its questions are kept for the next replacement.
    """
    filters, rounds, replaced = WindowFilter(method, processes), 0, 0
    surplus: list[Prompts] = []
    kept, groups = filters(window), singles(window)
    while rounds < method.sampling.refill_rounds and (missing := processes.largest(kept.count(False))):
        rounds += 1
        more = more_rows(window[0], missing, rounds)
        assign_credit(method, more)
        fresh = [group for group, keep in zip(singles(more), filters(more), strict=True) if keep]
        dropped = [index for index, keep in enumerate(kept) if not keep]
        for index, group in zip(dropped, fresh, strict=False):
            groups[index], kept[index] = group, True
            replaced += 1
        surplus += fresh[len(dropped) :]
    size = len(window[0])
    if replaced:
        window = [concat_groups(groups[start : start + size]) for start in range(0, len(groups), size)]
    for number, batch in enumerate(window):
        ids = batch.trained.group_ids
        groups_kept = torch.tensor(kept[number * size : number * size + len(batch)], device=ids.device)  # [B]
        credit_of(batch).loss_rows = groups_kept[ids]
    lost = {"groups_without_loss": torch.tensor(kept.count(False) / len(kept))}
    refilled = {"refill_rounds": torch.tensor(float(rounds)), "refilled_groups": torch.tensor(float(replaced))}
    return AppliedWindow(window, filters.observe() | lost, refilled, surplus)


class WindowFilter:
    """The filters of a method, applied to the groups of one window and of their replacements."""

    def __init__(self, method: Method, processes: Processes) -> None:
        self.filters = method.filters
        self.processes = processes
        self.values: list[list[Tensor]] = []  # of every filter, of all processes, [G] in each round
        self.dropped: list[list[Tensor]] = []

    def __call__(self, window: list[Prompts]) -> list[bool]:
        """Whether to keep each group of these micro-batches."""
        seen = [groups_of(batch) for batch in window]
        gather = self.processes.gather
        values = [gather(torch.cat([measure_groups(filter_, groups) for groups in seen])) for filter_ in self.filters]
        dropped = apply_filters(self.filters, [of_all.flatten() for of_all in values])
        self.values.append([of_all.flatten() for of_all in values])
        self.dropped.append(dropped)
        kept = ~torch.stack(dropped).any(dim=0)  # of all processes
        return kept.view_as(values[0])[self.processes.rank].tolist()

    def observe(self) -> dict[str, Tensor]:
        """Show all groups to the filters; return the fraction that each dropped, to log."""
        logs = {}
        total = torch.zeros(())
        for number, (name, filter_) in enumerate(zip(names_of(self.filters), self.filters, strict=True)):
            filter_.observe(torch.cat([values[number] for values in self.values]))
            fraction = torch.cat([dropped[number] for dropped in self.dropped]).float().mean()
            logs[f"filtered_{name}"], total = fraction, total.to(fraction) + fraction
        return logs | {"filtered_groups": total}


def normalize_over_batch(method: Method, window: list[Prompts], processes: Processes) -> None:
    """Compute the advantages over the window of all processes, without filtered groups."""
    found = [credit_of(batch) for batch in window]
    values = torch.cat([credit.reward.value for credit in found])  # [N]
    if method.filters:
        rows = [credit.loss_rows for credit in found if credit.loss_rows is not None]
        values = values.where(torch.cat(rows), torch.nan)  # left out
    baselines = [credit.reward.baseline for credit in found if credit.reward.baseline is not None]
    starts = range(0, len(window) * len(window[0]), len(window[0]))
    ids = torch.cat([batch.trained.group_ids + start for batch, start in zip(window, starts, strict=True)])  # [N]
    all_ids = processes.gather(ids)  # [processes, N]
    all_ids = all_ids + torch.arange(len(all_ids), device=ids.device).unsqueeze(1) * (int(ids.max()) + 1)
    baseline = processes.gather(torch.cat(baselines)).flatten() if baselines else None
    everyone = processes.gather(values).flatten()  # [N of all processes]
    advantages = advantages_by(method.advantage, everyone, all_ids.flatten(), baseline)
    here = advantages.view_as(all_ids)[processes.rank]  # [N]
    parts = here.split([len(batch.trained) for batch in window])
    for batch, credit, part in zip(window, found, parts, strict=True):
        credit.advantages = method.by_step(part, batch)


def groups_of(batch: Prompts) -> Groups:
    """The groups of a micro-batch, for filters."""
    rollouts, scores = batch.sampled, batch.sampled.old_scores
    rows, width = rollouts.group_ids, rollouts.answer_ids.shape[1]
    logprobs = baseline = None  # [N, T]
    if scores is not None:
        logprobs = pack_segment(scores.logprobs, rollouts.segments.answer_mask, width)
        baseline = None if scores.baseline_logprobs is None else scores.baseline_logprobs[rows]
    return Groups(credit_of(batch).reward.value, rows, logprobs, rollouts.answer_mask[rows], baseline)
