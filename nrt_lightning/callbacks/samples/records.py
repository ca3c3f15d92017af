"""Records of sampled traces: one for each question and measurement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nrt_lightning.callbacks.samples.own_answers import OwnAnswer, own_answers
from nrt_lightning.structures import Prompts, Row
from nrt_lightning.tools.report.lines import without_middle

FORMAT = 1
LONGEST = 8000  # characters of a text
MOST_TOKENS = 400  # of an answer
Record = dict[str, Any]
NO_TRACE: Record = {  # of a policy that answers without one
    "kind": "answer", "text": None, "reward": None, "gain": None, "trace_tokens": None, "marker_emitted": None,
    "cut": None,
}  # fmt: skip


def train_records(
    trainer: Any, module: Any, batch: Prompts, outputs: dict[str, Tensor], questions: int
) -> list[Record]:
    """Best and worst trace of the first questions of a batch.

    Args:
        trainer: of the run.
        module: with a method.
        batch: with rollouts.
        outputs: of the training step, see `TrainingLog.outputs`.
        questions: number of them.
    """
    rollouts, reward = batch.sampled, outputs["reward"].float().cpu()
    picked: list[list[int]] = []  # rows of each question
    groups = rollouts.group_ids.cpu()
    for prompt in range(min(questions, len(batch))):
        picked.append(best_and_worst(reward, (groups == prompt).nonzero().squeeze(1)))
    rows = [row for pair in picked for row in pair]
    if not rows:
        return []
    answers = own_answers(trainer, module, batch, rows)
    traces = iter(train_traces(module.policy, batch, outputs, rows, answers))
    found = []
    for prompt, pair in enumerate(picked):
        mine = [dict(kind=kind, **next(traces)) for kind, _ in zip(("best", "worst"), pair, strict=False)]
        baseline = outputs.get("baseline_logprobs")
        ids = batch.answer_ids[prompt][batch.answer_mask[prompt]]
        found.append(record(module.policy, "train", batch.rows[prompt], ids, part(baseline, prompt, len(ids)), mine))
    return found


def best_and_worst(reward: Tensor, rows: Tensor) -> list[int]:
    """The rows with the highest and the lowest finite reward; one if there is no other.

    >>> best_and_worst(torch.tensor([0.1, 0.7, 0.4, 9.0]), torch.tensor([0, 1, 2]))
    [1, 0]
    >>> best_and_worst(torch.tensor([0.5, 0.5]), torch.tensor([0, 1])), best_and_worst(torch.ones(1), torch.tensor([0]))
    ([0, 1], [0])
    """
    finite = rows[reward[rows].isfinite()]
    rows = finite if len(finite) else rows
    order = rows[reward[rows].argsort(descending=True, stable=True)].tolist()
    return [order[0], order[-1]] if len(order) > 1 else order


def train_traces(
    policy: Any, batch: Prompts, outputs: dict[str, Tensor], rows: Sequence[int], answers: Sequence[OwnAnswer]
) -> list[Record]:
    """What is known of these rows' traces."""
    rollouts = batch.sampled
    segments, found = rollouts.segments, []
    for row, answer in zip(rows, answers, strict=True):
        trace = rollouts.completion_ids[row][segments.trace_mask[row]]
        length = int(batch.answer_mask[int(rollouts.group_ids[row])].sum())
        value, empty = float(outputs["reward"][row]), outputs.get("reward_baseline")
        logprobs = part(outputs.get("answer_logprobs"), row, length)
        found.append({
            "text": shortened(policy.tokenizer.decode(trace)),
            "reward": digits(value),
            "gain": None if empty is None else digits(value - float(empty[row])),
            "own_answer": shortened(answer.text),
            "own_answer_note": answer.note,
            "right": answer.right,
            "confidence": product(logprobs),
            "logprobs": tokens_kept(logprobs),
            "trace_tokens": len(trace),
            "marker_emitted": bool(segments.marker_emitted[row]),
            "cut": bool(rollouts.truncated[row]),
        })  # fmt: skip
    return found


def val_records(module: Any, batch: Prompts, outputs: dict[str, Any], rows: int) -> list[Record]:
    """The greedy trace of the first rows of a validation batch that count; the answer alone without traces.

    Args:
        module: that was evaluated.
        batch: of the validation.
        outputs: fields of its `Evaluation`.
        rows: number of them.
    """
    counted = [True] * len(batch) if batch.counted is None else batch.counted.tolist()
    found = []
    for index in [index for index, counts in enumerate(counted) if counts][:rows]:
        ids = batch.answer_ids[index][batch.answer_mask[index]]
        logprobs = part(outputs["logprobs"], index, len(ids))
        baseline = part(outputs.get("baseline_logprobs"), index, len(ids))
        traced = "trace_tokens" in outputs["outcomes"]
        trace = greedy_trace(module, outputs, index, logprobs, baseline) if traced else dict(NO_TRACE)
        trace |= greedy_answer(outputs, index, batch.rows[index], logprobs)
        found.append(record(module.policy, "val", batch.rows[index], ids, baseline, [trace]))
    return found


def greedy_trace(
    module: Any, outputs: dict[str, Any], index: int, logprobs: Tensor | None, baseline: Tensor | None
) -> Record:
    """What is known of the trace of a validation row."""
    text, method = outputs["texts"][index], getattr(module, "method", None)
    tokens, emitted = int(outputs["outcomes"]["trace_tokens"][index]), bool(text.marker_emitted)
    reward = gain = None
    if method is not None and method.signals is None and logprobs is not None and baseline is not None:
        mask = torch.ones_like(logprobs, dtype=torch.bool).unsqueeze(0)
        with_trace = method.aggregator(logprobs.unsqueeze(0), mask, baseline.unsqueeze(0)).value
        without = method.aggregator(baseline.unsqueeze(0), mask, baseline.unsqueeze(0)).value
        reward, gain = digits(float(with_trace)), digits(float(with_trace - without))
    return {
        "kind": "greedy",
        "text": shortened(text.trace),
        "reward": reward,
        "gain": gain,
        "trace_tokens": tokens,
        "marker_emitted": emitted,
        "cut": method is not None and not emitted and tokens >= method.sampling.max_trace_tokens,
    }


def greedy_answer(outputs: dict[str, Any], index: int, row: Row, logprobs: Tensor | None) -> Record:
    """What is known of the answer to a validation row."""
    checked, outcomes = outputs["checked"], outputs["outcomes"]
    right = checked["checked_match_forced"] if row.checks else outcomes["exact_match_forced"]
    return {
        "own_answer": shortened(outputs["texts"][index].policy_answer),
        "own_answer_note": "",
        "right": bool(right[index]),
        "confidence": product(logprobs),
        "logprobs": tokens_kept(logprobs),
    }


def record(
    policy: Any, split: str, row: Row, ids: Tensor, baseline: Tensor | None, traces: list[Record]
) -> Record:  # fmt: skip
    """The record of a question: `docs/progress_and_loggers.md` lists the fields."""
    kept = ids[:MOST_TOKENS].tolist()
    return {
        "format": FORMAT,
        "split": split,
        "id": row.id,
        "question": shortened(row.question),
        "reference": shortened(policy.markup.answer_of(policy.tokenizer.decode(ids, skip_special_tokens=True))),
        "answer_tokens": [policy.tokenizer.decode([token]) for token in kept],
        "answer_tokens_left_out": len(ids) - len(kept),
        "baseline_logprobs": tokens_kept(baseline),
        "baseline_confidence": product(baseline),
        "traces": traces,
    }


def part(values: Tensor | None, row: int, length: int) -> Tensor | None:
    """The first `length` values of a row; None where there are none."""
    return None if values is None else values[row][:length].detach().float().cpu()


def product(logprobs: Tensor | None) -> float | None:
    """The probability of the whole answer."""
    return None if logprobs is None else digits(float(logprobs.double().sum().exp()))


def tokens_kept(logprobs: Tensor | None) -> list[float] | None:
    """The log-probs of the tokens that a record keeps."""
    return None if logprobs is None else [round(value, 4) for value in logprobs[:MOST_TOKENS].tolist()]


def digits(value: float) -> float:
    """A number with six digits, as JSON keeps it."""
    return float(f"{value:.6g}")


def shortened(text: Any) -> Any:
    """A text that fits into a record; None stays None."""
    return None if text is None else without_middle(text, LONGEST)
