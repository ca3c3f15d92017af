"""Quantization of a frozen base."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

# On CPUs with AVX512-BF16 it warns at import that a kernel is missing: the one that `keep_layout` forbids.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(lambda record: "gemm_4bit" not in record.getMessage())


class Quantization(ABC):
    """How the linear layers of a frozen base are stored."""

    @property
    @abstractmethod
    def bits(self) -> float:
        """Bits per weight, scales included."""

    @abstractmethod
    def check(self) -> None:
        """Raise `InputError` if a package is missing."""

    @abstractmethod
    def config(self, dtype: torch.dtype) -> Any:
        """The configuration with which transformers reads pretrained weights.

        Args:
            dtype: of the policy; the layers compute in it unless the settings name another.
        """

    @abstractmethod
    def quantize(self, model: PreTrainedModel) -> PreTrainedModel:
        """Quantize a loaded model in place."""


def keep_layout(model: nn.Module) -> None:
    """Keep 4-bit layers from repacking their weights for CPUs with AVX512-BF16.

    bitsandbytes repacks them in place, in the first forward pass in eval mode without gradients. Only one kernel can
    read the repacked weights: later backward passes and merging silently give wrong results (docs/adapters.md).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010  (unknown to mypy)
