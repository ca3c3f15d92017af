"""Memory of an optimizer, measured on small parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nrt_lightning.tools.planning.tracker import LiveMemory

SIDE = 128  # of the parameters; 8-bit optimizers keep smaller ones in full precision


@dataclass(frozen=True)
class OptimizerNeeds:
    """Bytes per trained weight."""

    states: float
    working: float  # temporary, during a step
    all_at_once: bool  # it updates all tensors together, not one after another


def measure_optimizer(
    make: Callable[[Any], torch.optim.Optimizer], dtype: torch.dtype, *, on_gpu: bool
) -> OptimizerNeeds:
    """Measure the memory of an optimizer that updates two small parameters.

    Args:
        make: from parameters to an optimizer.
        dtype: of the trained weights.
        on_gpu: plan for a GPU, where torch's optimizers update all tensors together.
    """
    parameters = [nn.Parameter(torch.zeros(SIDE, SIDE, dtype=dtype)) for _ in range(2)]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer = make(parameters)
    groups = optimizer.param_groups
    together = on_gpu and all(g.get("foreach", False) is None and not g.get("fused") for g in groups)
    for group in groups:
        group["foreach"] = True if together else group.get("foreach")
    count = 2 * SIDE * SIDE
    try:
        optimizer.step()
        with LiveMemory(lambda tensor: "working") as memory:
            optimizer.step()
    except Exception:  # some 8-bit optimizers have kernels for GPUs only
        return OptimizerNeeds(states=2.0 if "8bit" in type(optimizer).__name__ else 8.0, working=0.0, all_at_once=False)
    held = sum(nbytes(value) for state in optimizer.state.values() for value in state.values())
    used = sum(memory.peaks.get("", {}).values()) / (count if together else count / 2)
    return OptimizerNeeds(states=held / count, working=used, all_at_once=together)


def nbytes(value: Any) -> int:
    """Bytes of a tensor, 0 for numbers."""
    return value.numel() * value.element_size() if isinstance(value, Tensor) and value.dim() else 0
