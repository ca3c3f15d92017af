"""Rollout and learning on a GPU: random Llamas of 1B and 3B parameters in bf16, compared with `generate`.

    python -m benchmarks.gpu [--shapes 1B 3B] [--steps 3] [--json FILE]

K 8, prompts of 256 tokens, traces of 512, answers of 256. Seconds are wall-clock time with the device synchronized.
Without a GPU it prints a message and exits with code 0; `--shapes tiny --device cpu` runs a small version on a CPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.bound import bound_gflop
from benchmarks.measure import matmul_rate, table
from benchmarks.workload import MARKER, Workload, build_model, build_tokenizer, plain_generate, prompts
from nrt_lightning import NRTModule, Policy
from nrt_lightning.rollouts import TransformersEngine, assemble, trace_request
from nrt_lightning.strategies import Processes
from nrt_lightning.structures import Prompts
from nrt_lightning.training.micro_batches import learn_at_once

LENGTHS: dict[str, Any] = {
    "prompt_tokens": (256,) * 4,
    "answer_tokens": (256,) * 4,
    "trace_tokens": 512,
    "group_size": 8,
    "ends_after": 0,
}
SHAPES = {
    "1B": Workload(
        **LENGTHS, vocabulary=128256, hidden=2048, intermediate=8192, layers=16, heads=32, kv_heads=8, tied=True
    ),
    "3B": Workload(
        **LENGTHS, vocabulary=128256, hidden=3072, intermediate=8192, layers=28, heads=24, kv_heads=8, tied=True
    ),
    "tiny": Workload(ends_after=0),
}  # fmt: skip


def seconds(name: str, call: Callable[[], Any], device: torch.device, times: int) -> tuple[float, float]:
    """Median wall-clock seconds after a warm-up call, and peak memory in GB (0 on a CPU); prints both."""
    found = []
    for _ in range(1 + times):
        wait(device)
        start = time.perf_counter()
        call()
        wait(device)
        found.append(time.perf_counter() - start)
    taken, peak = statistics.median(found[1:]), peak_gigabytes(device)
    print(f"{name}: {taken:.2f} s after {found[0]:.2f} s for the first, peak {peak:.1f} GB", flush=True)
    return taken, peak


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def build(work: Workload, device: torch.device) -> NRTModule:
    """A module on the device, with its model in bf16."""
    with device:
        model = build_model(work).to(torch.bfloat16)
    return NRTModule(Policy(model, MARKER, tokenizer=build_tokenizer(work.vocabulary)), sampling=work.sampling)


def learn(module: NRTModule, batch: Prompts, optimizer: torch.optim.Optimizer) -> None:
    """A training step without Trainer and logging."""
    learn_at_once(module.method, batch, Processes()).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def measure(work: Workload, device: torch.device, steps: int, rate: float) -> dict[str, float]:
    """Tokens per second, fraction of the matmul rate, and peak memory."""
    module, batch = build(work, device), prompts(work, 0).to(device)
    request = trace_request(module.policy, batch, work.sampling, seed=0)
    engine = TransformersEngine()
    sampled = work.rollouts * work.trace_tokens
    peaks: dict[str, float] = {}
    plain, peaks["generate"] = seconds(
        "generate", lambda: plain_generate(module.policy.network, batch, work), device, steps
    )
    rollout, peaks["rollout"] = seconds("rollout", lambda: engine.generate(module.policy, request), device, steps)
    batch.rollouts = rollouts = assemble(batch, engine.generate(module.policy, request), module.policy.markup)
    module.policy.train()
    optimizer = torch.optim.AdamW(module.policy.parameters(), lr=2e-6, fused=True)
    learning, peaks["learning"] = seconds("learning", lambda: learn(module, batch, optimizer), device, steps)
    gflop = bound_gflop(work, sampled, ended=0)
    learned = gflop["forward"] + gflop["backward"] + gflop["reward"]
    tokens = int(rollouts.segments.completion_mask.sum() + rollouts.prompt_mask.sum())
    return {
        "parameters": sum(p.numel() for p in module.policy.parameters()),
        "generate_tokens_per_second": sampled / plain,
        "rollout_tokens_per_second": sampled / rollout,
        "learning_tokens_per_second": tokens / learning,
        "rollout_flops_utilization": gflop["rollout"] / rollout / rate,
        "learning_flops_utilization": learned / learning / rate,
        "step_seconds": rollout + learning,
        "matmul_tflops": rate / 1000,
    } | {f"{name}_peak_gigabytes": peak for name, peak in peaks.items()}


def peak_gigabytes(device: torch.device) -> float:
    """Peak memory of the device since the last call; 0 on a CPU."""
    if device.type != "cuda":
        return 0.0
    peak = torch.cuda.max_memory_allocated(device) / 1e9
    torch.cuda.reset_peak_memory_stats(device)
    return peak


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=["1B", "3B"])
    parser.add_argument("--steps", type=int, default=3, help="measured, after a warm-up (%(default)s)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path, help="file for the measurements")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("benchmarks.gpu: skipped, no CUDA device found.")
        return
    rate = matmul_rate(2.0, device.type, torch.bfloat16)
    results: dict[str, dict[str, float]] = {}
    for shape in options.shapes:
        results[shape] = measure(SHAPES[shape], device, options.steps, rate)
        report(results, options.json)
        gc.collect()
        torch.cuda.empty_cache()


def report(results: dict[str, dict[str, float]], path: Path | None) -> None:
    """Print and write what has been measured so far, so that a run that is stopped loses one measurement only."""
    names = list(next(iter(results.values())))
    rows = [[name.replace("_", " "), *(f"{found[name]:,.4g}" for found in results.values())] for name in names]
    print(table(["", *results], rows), flush=True)
    if path:
        path.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
