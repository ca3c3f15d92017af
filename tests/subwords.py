"""Subword tokenizers of the two common kinds, trained here on a small text, and a random model for them."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXT = """Question: 6 + 9 = 15, 15 - 8 = 7 => 7. The answer is 12.
Answer: 12
Answer: seven =>7 =>12 so =>
<think> First add, then subtract. </think> <answer> 12 </answer>.</think>
</think>
<answer>4</answer> größer als 3 → 4, “quoted” — naïve 答え: 5
"""
MORE = (" =>", "=>", ".\n", "wer:", ":\n", "\nAn", "> <", ">\n<", "er:", " \n", "7 =")  # whole tokens that cut markers


def byte_level() -> PreTrainedTokenizerFast:
    """As GPT-2, Llama 3 and Qwen have it; some tokens reach across the boundaries of markers."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return _wrap(backend, pre_tokenizers.ByteLevel.alphabet())


def sentencepiece() -> PreTrainedTokenizerFast:
    """As Llama 2, Gemma and Mistral have it: a text begins with a space that decoding drops; bytes as a fallback."""
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)
    ])  # fmt: skip
    return _wrap(backend, [], [f"<0x{byte:02X}>" for byte in range(256)])


def _wrap(backend: Tokenizer, alphabet: list[str], tokens: list[str] | None = None) -> PreTrainedTokenizerFast:
    specials = ["<unk>", "<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=[*specials, *(tokens or [])], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([TEXT] * 3 + [piece for piece in MORE for _ in range(40)], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def save_model(directory: Path, tokenizer: PreTrainedTokenizerFast, context: int = 256) -> str:
    """A random Llama for the tokenizer."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=context, initializer_range=0.3, bos_token_id=1, eos_token_id=2,
        pad_token_id=3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)
