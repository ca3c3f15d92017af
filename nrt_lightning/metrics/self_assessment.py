"""Whether a policy is right as often as it is sure."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error

BINS = 10


def self_assessment(agreement: Tensor, confidence: Tensor, right: Tensor) -> dict[str, Tensor]:
    """How well two signals of a policy foretell whether its answer is right. All lie between 0 and 1.

    `calibration_error` is the expected calibration error of the agreement (torchmetrics): the mean over bins of equal
    width, weighted by their rows, of the distance between mean agreement and fraction right.
    `calibration_error_confidence` is that of the confidence. `right_surest_half` is the fraction right among the half
    of the rows with the highest agreement; rows of the agreement at its edge count in part. Where it is above `right`,
    leaving out the rows that the policy is unsure of helps (risk and coverage, arXiv 1705.08500).

    Args:
        agreement: `[R]` fraction of the sampled answers that are the most frequent one.
        confidence: `[R]` mean probability that the policy gave to its sampled answers.
        right: `[R]` bool, whether the most frequent answer is right.

    Returns:
        Scalars by name.

    Example:
        >>> values = self_assessment(torch.tensor([1.0, 0.5]), torch.tensor([0.9, 0.1]), torch.tensor([True, False]))
        >>> {name: round(float(value), 2) for name, value in values.items() if "error" in name or "half" in name}
        {'calibration_error': 0.25, 'calibration_error_confidence': 0.1, 'right_surest_half': 1.0}
    """
    return {
        "agreement": agreement.float().mean(),
        "confidence": confidence.float().mean(),
        "right": right.float().mean(),
        "calibration_error": calibration_error(agreement, right),
        "calibration_error_confidence": calibration_error(confidence, right),
        "right_surest_half": surest(agreement, right, 0.5),
    }


def calibration_error(signal: Tensor, right: Tensor) -> Tensor:
    """Expected calibration error over `BINS` bins."""
    return binary_calibration_error(signal.float().clamp(0, 1), right.long(), n_bins=BINS, norm="l1").float()


def surest(signal: Tensor, right: Tensor, coverage: float) -> Tensor:
    """Fraction right among the fraction `coverage` of the rows with the highest signal.

    Rows with equal signals are exchangeable: those at the edge count with the same weight each.

    >>> float(surest(torch.tensor([0.9, 0.5, 0.5, 0.1]), torch.tensor([True, True, False, False]), 0.5))
    0.75
    """
    room = coverage * len(signal)
    order = signal.unique().flip(0)  # highest first
    total = torch.zeros((), device=signal.device)
    left = room
    for value in order:
        rows = signal == value
        count = int(rows.sum())
        total = total + right[rows].float().mean() * min(count, left)
        left -= min(count, left)
        if left <= 0:
            break
    return total / room
