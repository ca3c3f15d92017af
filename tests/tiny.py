"""Tiny models of several architectures, made in code, and prompts for them."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CohereConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from nrt_lightning import Policy
from nrt_lightning.models.policy.policy import resolve
from nrt_lightning.rollouts import GenerationRequest, TransformersEngine, assemble
from nrt_lightning.structures import Prompts, Rollouts, Row

BASE = resolve("embedded:registers-base")


def tiny_config(family: str, tied: bool = True) -> PretrainedConfig:
    """A configuration with the embedded tokenizer's vocabulary, rounded up as real models round theirs."""
    vocab = {"vocab_size": 72, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "tie_word_embeddings": tied}
    shape = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
    }
    configs = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
    if family in configs:
        return configs[family](**shape, **vocab)
    if family == "gemma":
        return GemmaConfig(**shape, **vocab)
    if family == "cohere":
        return CohereConfig(**shape, **vocab, logit_scale=0.3)
    return GPT2Config(
        n_embd=32, n_layer=2, n_head=4, n_positions=256, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, **vocab
    )


def save_tiny(directory: Path, family: str, tied: bool = True) -> str:
    """A random checkpoint with a real tokenizer."""
    torch.manual_seed(0)
    config = tiny_config(family, tied)
    config.initializer_range = 0.3  # so that distributions are far from uniform
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    AutoTokenizer.from_pretrained(BASE).save_pretrained(directory)
    return str(directory)


def make_prompts(policy: Policy, questions: list[str], answers: list[str]) -> Prompts:
    """Prompts without the data side: left-padded questions, right-padded answers with the end token."""
    tokenizer = policy.tokenizer
    prompts = [tokenizer(q)["input_ids"] for q in questions]
    ends = [[*tokenizer(a, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for a in answers]
    left, right = max(map(len, prompts)), max(map(len, ends))
    return Prompts(
        prompt_ids=torch.tensor([[0] * (left - len(p)) + p for p in prompts]),
        prompt_mask=torch.tensor([[False] * (left - len(p)) + [True] * len(p) for p in prompts]),
        answer_ids=torch.tensor([a + [0] * (right - len(a)) for a in ends]),
        answer_mask=torch.tensor([[True] * len(a) + [False] * (right - len(a)) for a in ends]),
        rows=[Row(str(i), [{"role": "user", "content": q}], a) for i, (q, a) in enumerate(zip(questions, answers))],
    )


QUESTIONS = ["a4b*2c+2d+3?dc:", "b1c+1d*3?dc:", "a2b*2c+2d+3e*4?eb:"]
ANSWERS = ["d3,c0", "d1,c2", "e4,b4"]


def sampled(policy: Policy, group_size: int = 3, max_new_tokens: int = 9) -> Rollouts:
    """Rollouts of the three questions."""
    prompts = make_prompts(policy, QUESTIONS, ANSWERS)
    request = GenerationRequest(
        prompts.prompt_ids,
        prompts.prompt_mask,
        max_new_tokens,
        [policy.markup.marker_ids[0], *policy.eos_ids],
        group_size,
        seed=1,
    )
    return assemble(prompts, TransformersEngine().generate(policy, request), policy.markup)
