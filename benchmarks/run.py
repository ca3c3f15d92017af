"""Request and response of a subprocess of `benchmarks.step`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.measure import Phases, flop_phases, matmul_rate, peak_memory
from benchmarks.workload import Workload

Sampled = dict[str, int]  # of a step: sampled "tokens", end tokens included, and traces that "ended"
WARM_UP = 1  # steps that are not measured


@dataclass(frozen=True)
class Run:
    """Some steps of one side.

    Args:
        work: model and rows.
        steps: number of measured steps, after the warm-up.
        flops: measure GFLOP instead of CPU seconds.
        scoring: our side's scoring forward, by the name of its class.
        rank: of LoRA on all linear layers of both sides; 0 trains all weights.
        half: the base in bfloat16, and matrix products under bf16-mixed.
        checkpointing: recompute activations in the backward pass.
    """

    work: Workload
    steps: int
    flops: bool = False
    scoring: str = "BestScoring"
    rank: int = 0
    half: bool = False
    checkpointing: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """Of the base's weights."""
        return torch.bfloat16 if self.half else torch.float32


def main(train: Callable[[Run, Phases], list[Sampled]]) -> None:
    """Run a side as described by the JSON on the command line, and print the measurements as JSON."""
    asked = json.loads(sys.argv[1])
    run = Run(**asked | {"work": Workload.from_json(asked["work"])})
    torch.set_num_threads(1)
    imported = peak_memory()
    if run.flops:
        with flop_phases() as phases:
            sampled = train(run, phases)
        answer: dict[str, Any] = {"gflop": scaled(phases, 1e-9)}
    else:
        phases = Phases()
        sampled = train(run, phases)
        answer = {"seconds": scaled(phases, 1.0), "memory_imported": imported, "memory_peak": peak_memory()}
        answer["matmul_rate"] = matmul_rate()
    answer["sampled"] = sampled[WARM_UP:]
    print(json.dumps(answer))


def scaled(phases: Phases, factor: float) -> list[dict[str, float]]:
    """The measured steps; the first entry is the time before the first step."""
    return [{name: factor * value for name, value in step.items()} for step in phases.steps[1 + WARM_UP :]]
