"""Workload of the benchmarks: a random Llama, a tokenizer and rows."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from nrt_lightning import Policy
from nrt_lightning.functional import pad_rows
from nrt_lightning.rollouts import Generations, assemble
from nrt_lightning.structures import Markup, Prompts, Rollouts, Row, Sampling

MARKER = "<|response_start|>"
SPECIALS = ("<pad>", "<s>", "</s>", MARKER)
PAD_ID, BOS_ID, EOS_ID, MARKER_ID = range(4)
MARKUP = Markup(MARKER, (MARKER_ID,), marker_token=True)
SEED = 20


@dataclass(frozen=True)
class Workload:
    """Sizes of one training step, in tokens; 7.4M parameters by default."""

    prompt_tokens: tuple[int, ...] = (72, 77, 83, 88)
    answer_tokens: tuple[int, ...] = (8, 24, 40, 64)  # with the end token
    group_size: int = 8
    trace_tokens: int = 64
    vocabulary: int = 8192
    hidden: int = 256
    intermediate: int = 704
    layers: int = 4
    heads: int = 4
    kv_heads: int = 4
    tied: bool = False  # output and input embeddings share their weights
    prefix: int = 0  # tokens of instructions in front of every question, besides `prompt_tokens`
    ends_after: float = 32  # a trace ends with probability 1 / ends_after at every token; 0: all have `trace_tokens`

    @property
    def prompts(self) -> int:
        return len(self.prompt_tokens)

    @property
    def rollouts(self) -> int:
        return self.prompts * self.group_size

    @property
    def sampling(self) -> Sampling:
        return Sampling(group_size=self.group_size, max_trace_tokens=self.trace_tokens)

    @property
    def body_parameters(self) -> int:
        """Parameters that multiply every token: all matrices of the layers."""
        head_size = self.hidden // self.heads
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * head_size * self.kv_heads
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def head_parameters(self) -> int:
        return self.hidden * self.vocabulary

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Workload:
        fields: dict[str, Any] = json.loads(text)
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})


SHAPES = {
    "small": Workload(),
    # SmolLM2-135M with random weights: instructions and worked examples in front of short questions.
    "135m": Workload(
        prompt_tokens=(20, 33, 47, 60), answer_tokens=(2, 4, 6, 8), vocabulary=49_152, hidden=576, intermediate=1536,
        layers=30, heads=9, kv_heads=3, tied=True, prefix=100,
    ),
}  # fmt: skip


def build_model(work: Workload, attn_implementation: str | None = None) -> LlamaForCausalLM:
    """The random model, whose traces end with the workload's probability."""
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(llama_config(work, attn_implementation))
    set_trace_lengths(model, work.ends_after)
    return model


def llama_config(work: Workload, attn_implementation: str | None = None) -> LlamaConfig:
    """Configuration of the model."""
    return LlamaConfig(
        vocab_size=work.vocabulary,
        hidden_size=work.hidden,
        intermediate_size=work.intermediate,
        num_hidden_layers=work.layers,
        num_attention_heads=work.heads,
        num_key_value_heads=work.kv_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=work.tied,
        pad_token_id=PAD_ID,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        attn_implementation=attn_implementation,
    )


@torch.no_grad()
def set_trace_lengths(model: Any, ends_after: float) -> None:
    """Set the probability of the end token to `1 / ends_after` after any text, and that of the marker to 0.

    Every embedding gets a large first entry, which makes the first entry of every hidden state large. The output rows
    of these two tokens weight it differently from all others.
    """
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight  # [V, H] both
    if head is embedding and not ends_after:
        return  # the marker's large entry would be an input too. A token ends a trace with probability 2 / V
    embedding[:, 0] = 4.0
    if head is embedding:
        model.model.norm.weight[0] = 1 / 16  # otherwise all logits are near 96, where bfloat16 has steps of 0.5
    size = model.model(torch.arange(64).unsqueeze(0)).last_hidden_state[..., 0].mean()
    if head is not embedding:
        head[:, 0] = 0.0
    common = float(head[PAD_ID, 0])
    head[[EOS_ID, MARKER_ID]] = 0.0
    odds = math.log(len(head) / (ends_after - 1)) if ends_after else -100.0  # other tokens are nearly uniform
    head[EOS_ID, 0] = common + odds / size
    head[MARKER_ID, 0] = common - 100.0 / size


def build_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer of words `w4`, `w5`, ... separated by spaces, one token each, without added tokens."""
    words = {word: index for index, word in enumerate((*SPECIALS, *(f"w{i}" for i in range(4, vocabulary))))}
    backend = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", padding_side="left"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [MARKER]})
    return tokenizer


def build_policy(work: Workload, *, dtype: torch.dtype = torch.float32, **settings: Any) -> Policy:
    return Policy(build_model(work).to(dtype), MARKER, tokenizer=build_tokenizer(work.vocabulary), **settings)


def texts(work: Workload, step: int) -> list[tuple[str, str]]:
    """Question and answer (without end token) of every row of a step, as text."""
    begin = torch.randint(4, work.vocabulary, (work.prefix,), generator=torch.Generator().manual_seed(SEED)).tolist()
    generator = torch.Generator().manual_seed(SEED + step)
    rows = []
    for prompt, answer in zip(work.prompt_tokens, work.answer_tokens):
        ids = torch.randint(4, work.vocabulary, (prompt + answer - 1,), generator=generator).tolist()
        words = [f"w{i}" for i in ids]
        question = [f"w{i}" for i in begin] + words[:prompt]
        rows.append((" ".join(question), " ".join(words[prompt:])))
    return rows


def prompts(work: Workload, step: int) -> Prompts:
    """The rows of a step as tensors."""
    rows = texts(work, step)
    questions = [[int(word[1:]) for word in question.split()] for question, _ in rows]
    answers = [[int(word[1:]) for word in answer.split()] + [EOS_ID] for _, answer in rows]
    return Prompts(
        *pad_rows([torch.tensor(q) for q in questions], left=True),
        *pad_rows([torch.tensor(a) for a in answers]),
        rows=[Row(str(i), [{"role": "user", "content": q}], a) for i, (q, a) in enumerate(rows)],
    )


@torch.no_grad()
def plain_generate(model: Any, batch: Prompts, work: Workload) -> torch.Tensor:
    """Sample the step's traces with transformers' `generate`. Prompts and traces, [N, P + L]"""
    return model.generate(
        batch.prompt_ids,
        attention_mask=batch.prompt_mask.long(),
        num_return_sequences=work.group_size,
        max_new_tokens=work.trace_tokens,
        do_sample=True,
        top_k=0,
        eos_token_id=[MARKER_ID, EOS_ID],
        pad_token_id=PAD_ID,
    )


def fixed_rollouts(work: Workload) -> Rollouts:
    """Rollouts of random traces with the workload's lengths."""
    batch, generator = prompts(work, 0), torch.Generator().manual_seed(SEED)
    shape = (len(batch) * work.group_size, work.trace_tokens)
    ids = torch.randint(len(SPECIALS), work.vocabulary, shape, generator=generator)
    if work.ends_after:
        ids[torch.rand(shape, generator=generator) < 1 / work.ends_after] = EOS_ID
    ends = (ids == EOS_ID).long().cumsum(dim=1)  # 1 from the first end token on
    mask = (ends == 0) | ((ends == 1) & (ids == EOS_ID))
    return assemble(batch, Generations(ids, mask, stopped=ends[:, -1] > 0), MARKUP)
