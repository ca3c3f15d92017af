"""Golden vectors: results of the paper's official code (commit ad3a7e9c) for generated inputs."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nrt_lightning.functional import pack_segment, unpack_segment
from nrt_lightning.rewards import ArithmeticMean, GeometricMean, LogProb, Prob, WeightedSum

FOLDER = Path(__file__).parent
AGGREGATORS = {
    "log_prob": LogProb(),
    "prob": Prob(),
    "geometric_mean": GeometricMean(),
    "arithmetic_mean": ArithmeticMean(),
    "weighted_sum_inverse_prob": WeightedSum("inverse_prob"),
    "weighted_sum_log_prob": WeightedSum("neg_log_prob"),
}


@lru_cache
def cases(name: str) -> list[dict[str, Any]]:
    return json.loads((FOLDER / f"{name}.json").read_text())["cases"]


def number(value: float | str | None) -> float:
    """Convert a JSON value: `null` is NaN, and infinities are strings."""
    return float("nan") if value is None else float(value)


def numbers(values: list[Any], dtype: torch.dtype = torch.float64) -> Tensor:
    rows = [[number(v) for v in row] if isinstance(row, list) else number(row) for row in values]
    return torch.tensor(rows, dtype=dtype)


def mask(values: list[Any]) -> Tensor:
    return torch.tensor(values).bool()


def dtype_of(case: dict[str, Any]) -> torch.dtype:
    return getattr(torch, case["config"]["dtype"])


def score(aggregation: str, inputs: dict[str, Any], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Our rewards of a golden case, the token weights at the positions of the response, and the answer mask."""
    logprobs, answer_mask = numbers(inputs["log_prob"], dtype), mask(inputs["answer_mask"])
    base, base_mask = numbers(inputs["base_log_prob"], dtype), mask(inputs["base_answer_mask"])
    aggregator = AGGREGATORS[aggregation]
    packed = pack_segment(answer_mask, answer_mask)
    if not aggregator.needs_baseline:
        reward = aggregator(pack_segment(logprobs, answer_mask), packed)
        return reward.value, unpack_segment(reward.token_weights, answer_mask), answer_mask
    # Ours has one answer mask for both. If the official baseline answer is shorter, the common part is used.
    width = packed.shape[1]
    both = max(width, int(base_mask.sum(1).max()))
    common = packed & pack_segment(base_mask, base_mask, both)[:, :width]
    reward = aggregator(pack_segment(logprobs, answer_mask), common, pack_segment(base, base_mask, both)[:, :width])
    return reward.value, unpack_segment(reward.token_weights, answer_mask), answer_mask
