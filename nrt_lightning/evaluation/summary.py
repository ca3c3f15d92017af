"""What answers to questions amount to: means, majority votes and pass@k."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from nrt_lightning.evaluation.answered import AnsweredQuestion
from nrt_lightning.signals import TextSignal


def pass_at_k(count: int, right: int, k: int) -> float:
    """Estimate the probability that one of k samples is right, without bias: 1 - C(n - c, k) / C(n, k).

    Chen et al. 2021 (arXiv 2107.03374).

    Args:
        count: samples n.
        right: right ones among them, c.
        k: at most n.

    >>> pass_at_k(4, 1, 1), pass_at_k(4, 1, 2), pass_at_k(4, 0, 4), pass_at_k(4, 3, 2)
    (0.25, 0.5, 0.0, 1.0)
    """
    return 1 - math.comb(count - right, k) / math.comb(count, k)


def powers_of_two(samples: int) -> list[int]:
    """The k of pass@k for so many samples: powers of two below them, and all.

    >>> powers_of_two(1), powers_of_two(12)
    ([1], [1, 2, 4, 8, 12])
    """
    return [*(2**power for power in range(samples.bit_length()) if 2**power < samples), samples]


def majority(question: AnsweredQuestion, name: str, metric: TextSignal) -> float:
    """The metric of the answer that most samples agree on; the mean of these where several are equally frequent.

    Answers agree if their `TextSignal.answer_key` is equal. Answers that were cut, or that stand after a forced marker
    where the metric does not count them, have no vote. Without votes it is 0.
    """
    forced = getattr(metric, "forced", False)
    votes: Counter[str] = Counter()
    value: dict[str, float] = {}
    for sample in question.samples:
        key = metric.answer_key(sample.answer)
        if key is not None and sample.ended and (sample.marker_emitted is not False or forced):
            votes[key] += 1
            value.setdefault(key, sample.values[name] or 0.0)
    most = max(votes.values(), default=0)
    return fmean(value[key] for key, count in votes.items() if count == most) if votes else 0.0


def summarize(questions: Sequence[AnsweredQuestion], metrics: Mapping[str, TextSignal]) -> dict[str, Any]:
    """Figures of all questions.

    Args:
        questions: with K answers each.
        metrics: by name.

    Returns:
        `metrics`: by name the mean over all answers, its standard error over questions, the number of answers for
        which the metric failed, and for K > 1 majority votes and pass@k, which counts values of 1 and above as right;
        and means over all answers, without those of traces where there are none.
    """
    samples = [sample for question in questions for sample in question.samples]
    count = len(questions[0].samples)
    found: dict[str, Any] = {"questions": len(questions), "samples": count}
    found["metrics"] = {name: of_metric(questions, name, metric, count) for name, metric in metrics.items()}
    emitted = [sample.marker_emitted for sample in samples if sample.marker_emitted is not None]
    tokens = [sample.trace_tokens for sample in samples if sample.trace_tokens is not None]
    if emitted:
        found["marker_rate"] = fmean(emitted)
    found["ended_answers"] = fmean(sample.ended for sample in samples)
    if tokens:
        found["trace_tokens"] = fmean(tokens)
    known = [sample.confidence for sample in samples if sample.confidence is not None]
    without = [q.confidence_without_trace for q in questions if q.confidence_without_trace is not None]
    if known:
        found["confidence"] = fmean(known)
    if without:
        found["confidence_without_trace"] = fmean(without)
    return found


def of_metric(questions: Sequence[AnsweredQuestion], name: str, metric: TextSignal, count: int) -> dict[str, Any]:
    """Figures of one metric."""
    values = [[sample.values[name] for sample in question.samples] for question in questions]
    means = [fmean(known) for of_one in values if (known := [value for value in of_one if value is not None])]
    failed = sum(value is None for of_one in values for value in of_one)
    error = stdev(means) / math.sqrt(len(means)) if len(means) > 1 else None
    figures: dict[str, Any] = {"mean": fmean(means) if means else None, "stderr": error, "failed": failed}
    if count > 1:
        figures[f"majority@{count}"] = fmean(majority(question, name, metric) for question in questions)
        right = [sum((value or 0) >= 1 for value in of_one) for of_one in values]
        figures |= {f"pass@{k}": fmean(pass_at_k(count, c, k) for c in right) for k in powers_of_two(count)}
    return figures
