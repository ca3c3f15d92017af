"""One NRT training step, ours and TRL's, on the same model, rows and lengths.

    python -m benchmarks.step [--pairs 3] [--steps 3] [--even] [--scoring CLASS] [--json FILE]
    python -m benchmarks.step --shape 135m --rank 16 [--half] [--checkpointing]

The sides alternate in subprocesses with one thread. A step lasts from the end of the previous step to its end, so a
trainer's overhead is included. Seconds are CPU seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

from benchmarks.bound import bound_gflop
from benchmarks.measure import in_subprocess, medians, table
from benchmarks.workload import SHAPES, Workload, build_model

SIDES = {"ours": "benchmarks.run_ours", "trl": "benchmarks.run_trl"}
PHASES = ("rollout", "reward", "forward", "backward", "optimizer", "other", "step")
LEARN = ("reward", "forward", "backward")


def measure(work: Workload, pairs: int, steps: int, *, flops: bool = True, **settings: Any) -> dict[str, Any]:
    """Medians of both sides, the bound and the ratios; `flops` counts those of one more step of each side."""
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    asked = {"work": work.to_json(), **settings}
    for _ in range(pairs):
        for side, module in SIDES.items():
            runs[side].append(in_subprocess(module, asked | {"steps": steps}))
    sides = {side: summary(runs[side]) for side in SIDES}
    for side, module in SIDES.items():
        counted = in_subprocess(module, asked | {"steps": 1, "flops": True})["gflop"] if flops else [{"step": math.nan}]
        sides[side]["gflop"] = medians(counted)
    rate = max(run["matmul_rate"] for side in runs.values() for run in side)
    sampled = sides["ours"]["sampled"]
    gflop = bound_gflop(work, sampled["tokens"], sampled["ended"])
    bound = {"gflop": gflop, "matmul_rate": rate, "seconds": {name: value / rate for name, value in gflop.items()}}
    return {"sides": sides, "bound": bound, "ratios": ratios(sides["ours"], sides["trl"], bound)}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of a side: over the steps of each process, then over processes."""
    seconds = medians(medians(run["seconds"]) for run in runs)
    sampled = medians(step for run in runs for step in run["sampled"])
    return {
        "seconds": seconds,
        "steps_measured": [run["seconds"] for run in runs],
        "sampled": sampled,
        "rollout_tokens_per_second": sampled["tokens"] / seconds["rollout"],
        "memory": medians(
            {"imported": run["memory_imported"], "peak": run["memory_peak"]} for run in runs
        ),
    }  # fmt: skip


def ratios(ours: dict[str, Any], trl: dict[str, Any], bound: dict[str, Any]) -> dict[str, float]:
    """Ratios of the sides: speedups above 1 and fractions below 1 are in our favor.

    `peak_memory` compares the memory after imports; `over_bound` is our step over the bound.
    """

    def learn(seconds: dict[str, float]) -> float:
        return sum(seconds.get(phase, 0.0) for phase in LEARN)

    def taken(memory: dict[str, float]) -> float:
        return memory["peak"] - memory["imported"]

    return {
        "step_speedup": trl["seconds"]["step"] / ours["seconds"]["step"],
        "rollout_speedup": ours["rollout_tokens_per_second"] / trl["rollout_tokens_per_second"],
        "learn_speedup": learn(trl["seconds"]) / learn(ours["seconds"]),
        "gflop": ours["gflop"]["step"] / trl["gflop"]["step"],
        "peak_memory": taken(ours["memory"]) / taken(trl["memory"]),
        "over_bound": ours["seconds"]["step"] / bound["seconds"]["step"],
    }


def report(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    ours, trl, bound = result["sides"]["ours"], result["sides"]["trl"], result["bound"]
    sides = (trl, ours)
    rows = [
        [f"{phase}, CPU s", *(f"{side['seconds'].get(phase, 0):.2f}" for side in sides), bound_text(bound, phase)]
        for phase in PHASES
    ]
    rows += [
        [f"{phase}, GFLOP", *(f"{side['gflop'].get(phase, 0):.1f}" for side in sides), f"{bound['gflop'][phase]:.1f}"]
        for phase in ("rollout", "reward", "forward", "backward", "step")
    ]
    memory = [side["memory"] for side in sides]
    rows += [
        ["sampled tokens", *(f"{side['sampled']['tokens']:.0f}" for side in sides), ""],
        ["rollout tokens/s", *(f"{side['rollout_tokens_per_second']:.0f}" for side in sides), ""],
        ["peak memory, MB", *(f"{m['peak']:.0f}" for m in memory), ""],
        ["of it after imports, MB", *(f"{m['peak'] - m['imported']:.0f}" for m in memory), ""],
    ]
    lines = [table(["one step", "TRL", "ours", "bound"], rows), ""]
    lines += [f"{name}: {value:.2f}" for name, value in result["ratios"].items()]
    return "\n".join([*lines, f"matmul rate of one thread: {bound['matmul_rate']:.0f} GFLOP/s"])


def bound_text(bound: dict[str, Any], phase: str) -> str:
    return f"{bound['seconds'][phase]:.2f}" if phase in bound["seconds"] else "0.00"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.step", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3, help="alternating runs of each side (%(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="measured steps of a run, after a warm-up (%(default)s)")
    parser.add_argument("--scoring", default="BestScoring", help="our scoring forward (%(default)s)")
    parser.add_argument("--shape", choices=SHAPES, default="small", help="model and lengths (%(default)s)")
    parser.add_argument("--layers", type=int, help="fewer layers than the shape has, to try the benchmark")
    parser.add_argument("--trace_tokens", type=int, help="other than the shape's 64")
    parser.add_argument("--rank", type=int, default=0, help="of LoRA on both sides; 0 trains all weights (%(default)s)")
    parser.add_argument("--half", action="store_true", help="bfloat16 weights and bf16-mixed, on both sides")
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations, on both sides")
    parser.add_argument("--even", action="store_true", help="all traces have the same length")
    parser.add_argument(
        "--seconds", action="store_true", help="count no FLOPs, which takes two more steps of each side"
    )
    parser.add_argument("--json", type=Path, help="file for the measurements")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("trl") is None:
        parser.exit(2, "benchmarks.step compares with TRL, which is not installed: pip install '.[bench]'\n")
    changes = {name: value for name in ("layers", "trace_tokens") if (value := getattr(options, name)) is not None}
    work = dataclasses.replace(SHAPES[options.shape], **changes, **({"ends_after": 0} if options.even else {}))
    settings = {name: getattr(options, name) for name in ("scoring", "rank", "half", "checkpointing")}
    result = {"workload": json.loads(work.to_json()), "parameters": build_model(work).num_parameters(), **settings}
    result |= measure(work, options.pairs, options.steps, flops=not options.seconds, **settings)
    print(report(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
