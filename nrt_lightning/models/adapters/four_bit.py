"""4-bit quantization by bitsandbytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D
from typing_extensions import override

from nrt_lightning.functional.validation import DTYPES, check_choice
from nrt_lightning.models.adapters.extras import require
from nrt_lightning.models.adapters.linear_layers import linear_names
from nrt_lightning.models.adapters.quantization import Quantization, keep_layout

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class FourBit(Quantization):
    """Linear layers in 4 bits, one scale per block of 64 weights (QLoRA, arXiv 2305.14314).

    The embeddings and the output head stay in the policy's dtype.

    Args:
        quant_type: `nf4`, quantiles of a normal distribution, or `fp4`, floating point.
        double_quant: store the scales in 8 bits: 4.13 instead of 4.5 bits per weight.
        compute_dtype: of the matrix products; null for the policy's dtype.
        storage_dtype: dtype of the tensors that hold the packed bits.

    Raises:
        InputError: an unknown choice, or bitsandbytes is not installed.

    Example:
        >>> FourBit()
        FourBit(quant_type='nf4', double_quant=True, compute_dtype=None, storage_dtype='uint8')
    """

    quant_type: Literal["nf4", "fp4"] = "nf4"
    double_quant: bool = True
    compute_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    storage_dtype: Literal["uint8", "float32", "bfloat16", "float16"] = "uint8"

    def __post_init__(self) -> None:
        check_choice("quantization.quant_type", self.quant_type, ("nf4", "fp4"))
        check_choice("quantization.compute_dtype", self.compute_dtype or "float32", DTYPES)
        check_choice("quantization.storage_dtype", self.storage_dtype, ("uint8", *DTYPES))

    @property
    @override
    def bits(self) -> float:
        return 4 + (8 / 64 + 32 / (64 * 256) if self.double_quant else 32 / 64)

    @override
    def check(self) -> None:
        require("bitsandbytes", "quantization FourBit")
        require("accelerate", "quantization FourBit")

    @override
    def config(self, dtype: torch.dtype) -> Any:
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.quant_type,
            bnb_4bit_use_double_quant=self.double_quant,
            bnb_4bit_compute_dtype=getattr(torch, self.compute_dtype) if self.compute_dtype else dtype,
            bnb_4bit_quant_storage=getattr(torch, self.storage_dtype),
        )

    @override
    def quantize(self, model: PreTrainedModel) -> PreTrainedModel:
        from transformers.quantizers import AutoHfQuantizer

        config = self.config(model.dtype)
        for name in linear_names(model):
            model.set_submodule(name, self._layer(model.get_submodule(name), config))
        quantizer = AutoHfQuantizer.from_config(config)
        for key, value in {"is_loaded_in_4bit": True, "hf_quantizer": quantizer}.items():
            setattr(model, key, value)  # peft and `dequantize` look for these
        model.config.quantization_config = config
        keep_layout(model)
        return model

    def _layer(self, linear: Any, config: Any) -> nn.Module:
        from bitsandbytes.nn import Linear4bit, Params4bit

        plain = linear.weight.detach()  # [out, in]
        plain = plain.T.contiguous() if isinstance(linear, Conv1D) else plain
        settings = {
            "quant_type": self.quant_type,
            "compress_statistics": self.double_quant,
            "quant_storage": config.bnb_4bit_quant_storage,
        }
        layer: Any = Linear4bit(
            plain.shape[1],
            plain.shape[0],
            bias=linear.bias is not None,
            compute_dtype=config.bnb_4bit_compute_dtype,
            device="meta",
            **settings,
        )
        weight: Any = Params4bit(plain, requires_grad=False, module=layer, **settings)
        layer.weight = weight.to(linear.weight.device)
        layer.bias = linear.bias
        layer.source_cls = type(linear)  # as transformers sets it
        layer.train(linear.training)
        return layer
