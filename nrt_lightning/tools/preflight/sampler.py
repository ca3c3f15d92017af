"""Samples groups of traces of a policy as it is, on the device and in the precision of the trainer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor

from nrt_lightning.errors import InputError
from nrt_lightning.evaluation.evaluate import right_answers
from nrt_lightning.evaluation.probe import answers_after, probe
from nrt_lightning.functional import pack_segment
from nrt_lightning.metrics import rollout_metrics
from nrt_lightning.models import Policy
from nrt_lightning.randomness import counter_seed, run_seed
from nrt_lightning.rewards import (
    ArithmeticMean,
    GeometricMean,
    LogProb,
    Prob,
    RewardAggregator,
    WeightedSum,
)
from nrt_lightning.rollouts import Generations, assemble
from nrt_lightning.rollouts.answering import nothing
from nrt_lightning.strategies import gather_objects
from nrt_lightning.structures import Prompts, Rollouts, Scores, TensorStruct
from nrt_lightning.training.method import Method

AGGREGATORS = (WeightedSum("neg_log_prob"), WeightedSum("inverse_prob"), GeometricMean(), ArithmeticMean(), LogProb(),
               Prob())  # fmt: skip


@dataclass
class Sample(TensorStruct):
    """R rows with K traces each, N = R * K. Log-probs are means over the answer's tokens, in nats."""

    logprobs: Tensor  # [R, K] of the answer after each trace
    borrowed_logprobs: Tensor  # [R, K] of the answer after the traces of another row
    direct_logprobs: Tensor  # [R] of the answer after the empty trace
    right: Tensor  # [R, K] whether the policy's own answer after the trace is right, see `right_answers`
    direct_right: Tensor  # [R] whether it is after the empty trace
    tokens: Tensor  # [R, K] of the traces
    emitted: Tensor  # [R, K] whether the trace ended with the marker
    cut: Tensor  # [R, K] whether it was cut at its limit
    entropy: Tensor  # [R] of the trace's tokens, nats; the batch's mean
    distinct: Tensor  # [R] share of distinct traces in the groups of the batch
    rewards: Tensor  # [R, K, aggregations]
    empty_rewards: Tensor  # [R, aggregations] of the empty trace


class PreflightModule(L.LightningModule):
    """Looks at the first validation rows; `samples` then holds what was seen.

    Args:
        module: an `NRTModule`; its policy, engine, sampling and aggregator are looked at.
        rows: validation rows that each process looks at.
        chunk: rows sampled at once.
    """

    def __init__(self, module: Any, rows: int, chunk: int) -> None:
        super().__init__()
        self.module = module
        self.rows = rows
        self.chunk = max(chunk, 2)  # a row borrows the traces of another
        self.method: Method = module.method
        own = self.method.aggregator
        self.aggregators = [*AGGREGATORS, *([] if own in AGGREGATORS else [own])]
        self.samples: list[Sample] = []

    @property
    def policy(self) -> Policy:
        """The policy; its tokenizer is that of the data."""
        return self.module.policy

    def configure_model(self) -> None:
        """Read the weights."""
        self.module.configure_model()

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """As the module does it."""
        return self.module.on_before_batch_transfer(batch, dataloader_idx)

    def validation_step(self, batch: Prompts, batch_idx: int) -> None:
        """Look at the rows of this batch that are still wanted."""
        wanted = min(len(batch), self.rows - sum(len(sample.right) for sample in self.samples))
        for start in range(0, wanted - 1, self.chunk):
            stop = min(start + self.chunk, wanted)
            stop = wanted if wanted - stop == 1 else stop  # no row is left alone
            seed = counter_seed(run_seed(), start, batch_idx, self.global_rank, "preflight")
            self.samples.append(sample(self.method, batch.slice(start, stop), self.aggregators, seed))
            if stop == wanted:
                break

    def gathered(self) -> Sample:
        """All samples, of all processes, on the CPU.

        Raises:
            InputError: there are none.
        """
        mine = [sample.to("cpu") for sample in self.samples]
        samples: list[Sample] = [sample for part in gather_objects(mine) for sample in part]
        if not samples:
            raise InputError("preflight found fewer than 2 validation rows. Set data.val, or data.val_rows.")
        return Sample(*(torch.cat([getattr(s, name) for s in samples]) for name in Sample.__dataclass_fields__))


def sample(method: Method, prompts: Prompts, aggregators: list[RewardAggregator], seed: int) -> Sample:
    """K traces of each of R rows, what they do to the answers of their own and of other rows, and their rewards."""
    policy, seen = method.policy, probe(method, prompts, seed)
    with policy.evaluating():
        borrowed = assemble(prompts, rolled(seen.traces, method.sampling.group_size), policy.markup)
        elsewhere = policy.score(borrowed).logprobs.where(borrowed.segments.answer_mask, 0).sum(dim=1)  # [N]
        direct = right_answers(policy, prompts, answers_after(policy, method.engine, prompts, nothing(prompts)))  # [R]
    rollouts, scores = seen.batch.sampled, seen.scores
    assert scores.baseline_logprobs is not None
    shape, length = (len(prompts), -1), prompts.answer_mask.sum(dim=1).clamp(min=1)  # [R]
    answers = scores.logprobs.where(rollouts.segments.answer_mask, 0).sum(dim=1)  # [N]
    looks, one = rollout_metrics(rollouts, scores.entropy), torch.ones_like(length, dtype=torch.float)
    rewards, empty = all_rewards(rollouts, scores, aggregators)
    return Sample(
        logprobs=answers.view(shape) / length.unsqueeze(1),
        borrowed_logprobs=elsewhere.view(shape) / length.unsqueeze(1),
        direct_logprobs=scores.baseline_logprobs.where(prompts.answer_mask, 0).sum(dim=1) / length,
        right=seen.right.view(shape),
        direct_right=direct,
        tokens=rollouts.segments.trace_mask.sum(dim=1).view(shape),
        emitted=rollouts.segments.marker_emitted.view(shape),
        cut=rollouts.truncated.view(shape),
        entropy=looks["trace_entropy"].value * one,
        distinct=looks["unique_traces"].value * one,
        rewards=rewards.view(len(prompts), -1, len(aggregators)),
        empty_rewards=empty,
    )


def rolled(traces: Generations, group_size: int) -> Generations:
    """Every group's traces handed to the next group."""
    return traces.apply(lambda tensor: tensor.roll(group_size, dims=0))


def all_rewards(rollouts: Rollouts, scores: Scores, aggregators: list[RewardAggregator]) -> tuple[Tensor, Tensor]:
    """Trace rewards [N, aggregations] and those of the empty trace [R, aggregations]."""
    baseline, rows = scores.baseline_logprobs, rollouts.group_ids
    assert baseline is not None
    logprobs = pack_segment(scores.logprobs, rollouts.segments.answer_mask, rollouts.answer_ids.shape[1])  # [N, T]
    given = [a(logprobs, rollouts.answer_mask[rows], baseline[rows]).value for a in aggregators]
    empty = [a(baseline, rollouts.answer_mask, baseline).value for a in aggregators]
    return torch.stack(given, dim=1), torch.stack(empty, dim=1)
