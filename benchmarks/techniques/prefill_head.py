"""A frozen output head on the prompts' last hidden states: a matrix (`last_logits`) against a strided slice."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.techniques.technique import Technique
from nrt_lightning.models.scoring.base import last_logits


class PrefillHead(Technique):
    name: ClassVar[str] = "prefill_head"
    cases: ClassVar[tuple[str, ...]] = ("bfloat16", "float32")
    ways: ClassVar[tuple[str, ...]] = ("slice", "matrix")

    def build(self, case: str, way: str) -> Callable[[], float]:
        shape = {"hidden_size": 640, "intermediate_size": 64, "num_attention_heads": 4, "vocab_size": 65_536}
        model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=1, **shape)).to(getattr(torch, case))
        model.requires_grad_(False)  # as under LoRA
        ids = torch.ones(8, 64, dtype=torch.long)  # 8 prompts of 64 tokens

        @torch.no_grad()
        def prefill() -> float:
            if way == "slice":
                model(input_ids=ids, use_cache=False, logits_to_keep=1)
            else:
                last_logits(model, {"input_ids": ids, "use_cache": False})
            return 1

        return prefill
