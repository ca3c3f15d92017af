"""Measures the memory of the phases of a step in a process of its own; prints a JSON line."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import re
import sys
from pathlib import Path

import torch

from benchmarks.workload import Workload, build_policy, fixed_rollouts, prompts
from nrt_lightning import LoRA
from nrt_lightning.rollouts import TransformersEngine, trace_request, transformers_engine

M_MMAP_THRESHOLD = -3  # of malloc.h


def resident(field: str) -> int:
    """Bytes of this process: VmRSS is current, VmHWM the peak since the last reset."""
    return 1024 * int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def reset() -> int:
    """Reset the peak."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def build(work: Workload, rank: int):
    return build_policy(work, adapter=LoRA(rank=rank) if rank else None)


def step(policy, work: Workload) -> None:
    policy.score(fixed_rollouts(work), baseline=True).logprobs.sum().backward()


def main() -> None:
    torch.set_num_threads(1)
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 65536)  # freed memory is returned at once: only live memory counts
    asked = json.loads(sys.argv[1])
    work, rank = Workload.from_json(asked["work"]), asked["rank"]
    tiny = dataclasses.replace(work, vocabulary=4096, hidden=32, intermediate=32, layers=1)
    small = build(tiny, rank)
    step(small, tiny)  # what every process loads at its first use
    TransformersEngine().generate(small, trace_request(small, prompts(tiny, 0), tiny.sampling, seed=0))
    del small
    policy = build(work, rank)
    before = reset()
    step(policy, work)
    learning = resident("VmHWM") - before
    policy.zero_grad()
    transformers_engine.LEAST_SAVED = sys.maxsize  # as on GPUs: each row has a copy of its prompt's keys and values
    request = trace_request(policy, prompts(work, 0), work.sampling, seed=0)
    before = reset()
    TransformersEngine().generate(policy, request)
    print(json.dumps({"learning": learning, "rollout": resident("VmHWM") - before}))


if __name__ == "__main__":
    main()
