"""Adapted layers under bf16-mixed (`models/adapters/low_rank.py`) against peft's."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.techniques.technique import Technique
from nrt_lightning.models.adapters.low_rank import fuse_updates


class LowRankUpdates(Technique):
    name: ClassVar[str] = "low_rank"
    cases: ClassVar[tuple[str, ...]] = ("bf16-mixed", "float32")
    ways: ClassVar[tuple[str, ...]] = ("peft", "one product")

    def build(self, case: str, way: str) -> Callable[[], float]:
        half, shape = case == "bf16-mixed", {"num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 64}
        base = LlamaForCausalLM(LlamaConfig(hidden_size=576, intermediate_size=1536, num_hidden_layers=2, **shape))
        base.to(torch.bfloat16 if half else torch.float32)
        model = get_peft_model(base, LoraConfig(r=16, target_modules="all-linear"), autocast_adapter_dtype=half)
        if way == "one product":
            fuse_updates(model)
        ids = torch.ones(1, 1024, dtype=torch.long)

        def forward_and_backward() -> float:
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = model(input_ids=ids, use_cache=False).logits.float().mean()
            loss.backward()
            model.zero_grad()
            return 1

        return forward_and_backward
