"""Measures one way of one technique in one case, in a subprocess."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch

from benchmarks.measure import peak_memory
from benchmarks.techniques.catalog import TECHNIQUES


def measure(technique: str, case: str, way: str) -> dict[str, Any]:
    """CPU seconds of each call, per unit of work, and the memory of the calls."""
    chosen = TECHNIQUES[technique]
    call = chosen.build(case, way)
    built = peak_memory()
    call()
    seconds = []
    for _ in range(chosen.calls):
        start = time.process_time()
        amount = call()
        seconds.append((time.process_time() - start) / amount)
    return {"seconds": seconds, "memory": peak_memory() - built}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
