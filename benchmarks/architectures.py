"""Every causal language model of transformers, made tiny: which scoring forward and which decoding it gets.

    python -m benchmarks.architectures            # all, prints the table of docs/architectures.md
    python -m benchmarks.architectures gpt2 mamba

Log-probs of sampling and scoring are compared with a plain forward pass of each sequence alone.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from nrt_lightning import InputError, PlainTemplate, Policy, TransformersEngine
from nrt_lightning.data import PromptEncoder
from nrt_lightning.data.default_template import fit_together
from nrt_lightning.models.policy.loading import resolve
from nrt_lightning.models.scoring.recurrence import recurrent
from nrt_lightning.models.scoring.self_check import alone
from nrt_lightning.rollouts import GenerationRequest, assemble
from nrt_lightning.rollouts.recurrent_decoding import EXACT
from nrt_lightning.structures import Row

SHAPE = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0,
         "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False, "is_decoder": True}  # fmt: skip
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
LINEAR = {"layer_types": ["linear_attention", "full_attention"]}
HEADS = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "num_local_experts": 2, "moe_intermediate_size": 16,
           "n_routed_experts": 2, "shared_expert_intermediate_size": 16, "first_k_dense_replace": 1}  # fmt: skip
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
          "num_key_value_heads": 4}  # fmt: skip
INDEXED = (
    LATENT | EXPERTS | {"index_n_heads": 16, "index_head_dim": 16, "index_topk": 4, "n_group": 1, "topk_group": 1}
)  # with few heads, scores are often 0 and equal
WINDOW = {"sliding_window": 16, "query_pre_attn_scalar": 8}
TYPES = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16}
HYBRID = LINEAR | HEADS
SETTINGS: dict[str, dict[str, Any]] = {  # beside `SHAPE`, where the defaults do not fit it
    "qwen3_5_text": HYBRID, "qwen3_next": HYBRID | EXPERTS, "qwen3_5_moe_text": HYBRID | EXPERTS,
    "granitemoehybrid": MAMBA | {"layer_types": ["mamba", "attention"], "num_local_experts": 0,
                                 "shared_intermediate_size": 48},
    "nemotron_h": {"layers_block_type": ["mamba", "attention"], "mamba_num_heads": 4, "mamba_head_dim": 16,
                   "ssm_state_size": 8, "n_groups": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3, "block_auto_adjust_ff_dim": False},
    "lfm2_moe": EXPERTS | {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3, "num_dense_layers": 1},
    "falcon_h1": MAMBA | {"mamba_d_ssm": 64}, "bamba": MAMBA | {"attn_layer_indices": [1]}, "olmo_hybrid": LINEAR,
    "jamba": EXPERTS | {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
                        "expert_layer_offset": 1, "mamba_d_state": 8, "mamba_dt_rank": 4, "use_mamba_kernels": False},
    "mamba": {"state_size": 8, "time_step_rank": 4}, "falcon_mamba": {"state_size": 8, "time_step_rank": 4},
    "mamba2": {"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1}, "minimax": LINEAR | EXPERTS,
    "zamba2": {"layer_types": ["mamba", "hybrid"], "mamba_d_state": 8, "mamba_headdim": 16, "n_mamba_heads": 4,
               "mamba_ngroups": 1, "num_mem_blocks": 1, "attention_hidden_size": 64, "attention_head_dim": 16,
               "adapter_rank": 4, "use_mem_rope": True},
    "zamba": {"layer_types": ["mamba", "hybrid"], "mamba_d_state": 8, "mamba_dt_rank": 4, "n_mamba_heads": 2,
              "attention_hidden_size": 64, "attention_head_dim": 16, "use_mamba_kernels": False},
    "kimi_linear": LATENT | EXPERTS | LINEAR | {"linear_head_dim": 8, "linear_num_heads": 4, "q_lora_rank": None},
    "rwkv": {"attention_hidden_size": 32}, "xlstm": {"num_heads": 2, "num_blocks": 2},
    "recurrent_gemma": {"lru_width": 32, "block_types": ["recurrent", "attention"], "attention_window_size": 64},
    "bloom": {"n_layer": 2, "n_head": 4}, "gemma2": WINDOW, "gemma3_text": WINDOW, "cohere2": WINDOW,
    "gemma4_text": TYPES | {"vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 8, "global_head_dim": 8},
    "gemma3n_text": TYPES | {"vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 8, "laurel_rank": 4,
                             "num_kv_shared_layers": 0, "activation_sparsity_pattern": [0.0, 0.0]},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 256, "expansion_ratio": 2},
    "gpt_neo": {"num_heads": 4, "num_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": 8},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32}, "gptj": GPT2 | {"rotary_dim": 8}, "gpt2": GPT2,
    "codegen": GPT2 | {"rotary_dim": 8}, "ctrl": GPT2, "openai-gpt": GPT2, "gpt_bigcode": GPT2,
    "xglm": {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48},
    "deepseek_v2": LATENT | EXPERTS, "deepseek_v3": LATENT | EXPERTS | {"n_group": 1, "topk_group": 1},
    "deepseek_v32": INDEXED, "glm_moe_dsa": INDEXED, "youtu": LATENT, "minicpm3": LATENT | {"head_dim": 16},
    "glm4_moe_lite": LATENT | EXPERTS, "axk1": LATENT | EXPERTS | {"n_group": 1, "topk_group": 1}, "axk2": INDEXED,
    "ernie4_5_moe": {"moe_num_experts": 2, "moe_k": 1, "moe_intermediate_size": 16},
    "afmoe": EXPERTS | TYPES, "mellum": EXPERTS | TYPES, "laguna": EXPERTS | TYPES, "exaone_moe": EXPERTS | TYPES,
    "mimo_v2_flash": EXPERTS | TYPES | {"v_head_dim": 8},
    "longcat_flash": LATENT | EXPERTS | {"num_layers": 2, "ffn_hidden_size": 48, "moe_topk": 2, "zero_expert_num": 2,
                                         "expert_ffn_hidden_size": 16},
    "zaya": EXPERTS | {"router_hidden_size": 8}, "hy_v4": INDEXED, "kolibri1": EXPERTS | TYPES,
    "deepseek_v4": EXPERTS | {"num_key_value_heads": 1, "q_lora_rank": 16, "o_groups": 2, "o_lora_rank": 8,
                              "index_n_heads": 2, "index_head_dim": 8, "index_topk": 4, "hc_mult": 2},
    "inkling_text": EXPERTS | {"swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_head_dim": 8,
                               "rel_extent": 32, "d_rel": 4, "sliding_window_size": 16},
    "inkling2_text": EXPERTS | {"swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_head_dim": 8,
                                "rel_extent": 32, "d_rel": 4, "sliding_window_size": 16, "unpadded_vocab_size": 64},
    "qwen4_exp_text": HYBRID | EXPERTS | {"hc_count": 2, "hc_lowrank": 4, "ngram_vocab_size_base": 50,
                                          "make_ngram_vocab_size_divisible_by": 8, "split_ngram_parts": 1},
    "dots3_note_text": LATENT | EXPERTS | {"num_key_value_heads": 4},
    "dots1": EXPERTS | {"n_shared_experts": 1},
    **dict.fromkeys(["mixtral", "gpt_oss", "qwen2_moe", "qwen3_moe", "glm4_moe", "minimax_m2", "hy_v3", "solar_open",
                     "olmoe", "jetmoe", "phimoe", "granitemoe", "granitemoeshared", "flex_olmo"], EXPERTS),
}  # fmt: skip
WITHIN = {  # models of texts and images by their part that reads and writes text
    "gemma3": "gemma3_text", "gemma3n": "gemma3n_text", "gemma4": "gemma4_text", "llama4": "llama4_text",
    "qwen3_5": "qwen3_5_text", "qwen3_5_moe": "qwen3_5_moe_text", "gemma4_unified": "gemma4_unified_text",
}  # fmt: skip
QUESTIONS = {"a4b*2c+2d+3?dc:": "d3,c0", "b1c+1d*3?dc:": "d1", "a2?a:": "a2"}
ROWS = [Row(question, [{"role": "user", "content": question}], answer) for question, answer in QUESTIONS.items()]


def build(family: str, shape: dict[str, Any] | None = None, **settings: Any) -> Policy:
    """A random policy of a family with the tokenizer of the register base; `shape` adds to its configuration."""
    torch.manual_seed(0)
    unknown = {"head_dim"} if family == "falcon" else set()
    known = SHAPE | SETTINGS.get(WITHIN.get(family, family), {}) | (shape or {})
    known = {name: value for name, value in known.items() if name not in unknown}
    config = AutoConfig.for_model(family, **{"text_config": known} if family in WITHIN else known)
    config.get_text_config().initializer_range = 0.3  # so that distributions are far from uniform
    shrink_pictures(config)
    with torch.device("meta"):
        size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    if size > 2_000_000:
        raise ValueError("its sizes have other names")
    model = AutoModelForCausalLM.from_config(config)
    tokenizer = AutoTokenizer.from_pretrained(resolve("embedded:registers-base"))
    return Policy(model, tokenizer=tokenizer, **settings).load().eval()


def shrink_pictures(config: Any) -> None:
    """Make what reads pictures and sounds small, in place."""
    for name in ("vision_config", "audio_config"):
        part = getattr(config, name, None)
        small = {
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "depth": 1,
            "num_attention_heads": 2,
        }
        for size, value in small.items():
            if part is not None and hasattr(part, size):
                setattr(part, size, value)


@dataclass
class Look:
    """What a policy gets, and how far it is from plain forward passes, in nats."""

    scoring: str
    scored: float
    decoding: str
    sampled: float


def look(policy: Policy) -> Look:
    """Sample and score two traces for each of three prompts of different lengths."""
    template = fit_together(PlainTemplate(), policy.tokenizer, policy)
    encoded = PromptEncoder(policy.tokenizer, template).encode(ROWS)
    prompts = encoded.collate([encoded[n] for n in range(len(ROWS))])
    ids, mask = prompts.prompt_ids, prompts.prompt_mask
    request = GenerationRequest(ids, mask, 8, policy.eos_ids, 2, seed=1, logprobs=True)
    network = policy.network
    with policy.evaluating():
        out = TransformersEngine().generate(policy, request)
        rollouts = assemble(prompts, out, policy.markup)
        scores = policy.score(rollouts, baseline=True)
        assert out.logprobs is not None
        scored = sampled = 0.0
        for row in range(len(out)):
            whole, width = alone(network, rollouts, row), int(out.token_mask[row].sum())
            scored = max(scored, float((scores.logprobs[row][: len(whole)] - whole).abs().max()))
            own = min(width, int(rollouts.segments.trace_mask[row].sum()))
            sampled = max(sampled, float((out.logprobs[row][:own] - whole[:own]).abs().max())) if own else sampled
    decoding = ("state" if EXACT.get(network) else "whole sequences") if recurrent(network) else "keys and values"
    scoring = type(policy.scoring.choose(network, rollouts.length)).__name__
    return Look(scoring, scored, decoding, sampled)


def line(family: str) -> str:
    """A line of the table, or why the family has none."""
    try:
        policy = build(family)
    except Exception as error:  # models raise many kinds
        return f"{family}: not built tiny ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    try:
        one = look(policy)
        checkpointed = "none"
        if policy.network.supports_gradient_checkpointing:
            checkpointed = look(build(family, activation_checkpointing=True)).scoring
    except InputError as error:
        return f"{family}: refused ({error})"
    except Exception as error:  # models raise many kinds
        return f"{family}: fails ({type(error).__name__}: {str(error).splitlines()[0]})"
    return f"| {family} | {one.scoring} | {checkpointed} | {one.scored:.0e} | {one.decoding} | {one.sampled:.0e} |"


def main() -> None:
    """Print the table, then the families that are not in it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("families", nargs="*", default=sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *SETTINGS}))
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    transformers.utils.logging.set_verbosity_error()
    print("| model | scoring | with activation checkpointing | off by (nats) | decoding | off by (nats) |")
    print("|---|---|---|---:|---|---:|", flush=True)
    others = []
    for family in tqdm(parser.parse_args().families):
        found = line(family)
        if found.startswith("|"):
            print(found, flush=True)
        else:
            others.append(found)
    print("\n".join(["", *others]))


if __name__ == "__main__":
    main()
