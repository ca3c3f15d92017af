"""Quantization: a frozen base in fewer bits."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

# On CPUs with AVX512-BF16 it warns at import, even where nothing is quantized, that a kernel is missing: the one that
# `keep_layout` forbids.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(lambda record: "gemm_4bit" not in record.getMessage())


class Quantization(ABC):
    """How the linear layers of a frozen base are stored."""

    @property
    @abstractmethod
    def bits(self) -> float:
        """What a weight takes up, with its share of the scales."""

    @abstractmethod
    def check(self) -> None:
        """Refuse to begin where a package is missing."""

    @abstractmethod
    def config(self, dtype: torch.dtype) -> Any:
        """What transformers reads pretrained weights with.

        Args:
            dtype: of the policy, in which the layers compute unless the settings say otherwise.
        """

    @abstractmethod
    def quantize(self, model: PreTrainedModel) -> PreTrainedModel:
        """Quantize a model that is in memory, in place."""


def keep_layout(model: nn.Module) -> None:
    """Forbid 4-bit layers to repack their weights for CPUs with AVX512-BF16.

    bitsandbytes does so at the first forward in eval mode without gradients, in place. The repacked weights serve that
    kernel alone: every later backward pass reads them as if they were in the usual order and gives wrong gradients
    without an error, and so does merging (docs/adapters.md).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010  (of bitsandbytes, unknown to the types)
