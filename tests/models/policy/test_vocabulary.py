"""Ids that tokenizer and model do not share, and models with a table of positions."""

from __future__ import annotations

import pytest
import torch
from short_runs import nrt_module, registers
from tiny import ANSWERS, BASE, QUESTIONS, make_prompts, save_tiny, tiny_config
from transformers import AutoModelForCausalLM, AutoTokenizer

from nrt_lightning import GeometricMean, InputError, LoRA, Policy, Sampling, SFTModule, TransformersEngine
from nrt_lightning.models.policy.vocabulary import position_limit, unused_ids
from nrt_lightning.rollouts import GenerationRequest, assemble


@pytest.fixture(scope="module")
def padded(tmp_path_factory):
    """72 rows for 64 tokens, random weights."""
    return save_tiny(tmp_path_factory.mktemp("padded"), "llama", tied=False)


def request(policy, prompts, **settings):
    return GenerationRequest(prompts.prompt_ids, prompts.prompt_mask, 16, [], group_size=8, **settings)


@pytest.mark.parametrize("settings", [{"temperature": 3.0}, {"temperature": 0.0}, {"temperature": 3.0, "top_k": 60}])
@pytest.mark.parametrize("fixed", [False, True])
def test_ids_beyond_the_tokenizer_are_never_sampled(padded, settings, fixed):
    policy = Policy(padded).load()
    with torch.no_grad():
        policy.network.get_output_embeddings().weight[len(policy.tokenizer) :] *= 20
    prompts = make_prompts(policy, QUESTIONS, ANSWERS)
    out = TransformersEngine(fixed_shapes=fixed).generate(policy, request(policy, prompts, **settings, logprobs=True))
    assert int(out.token_ids.max()) < len(policy.tokenizer) == 64
    assert unused_ids(policy) == list(range(64, 72))
    assert out.logprobs.isfinite().all()


def test_gaps_of_a_vocabulary_are_not_sampled(padded):
    policy = Policy(padded).load()
    policy.tokenizer.get_vocab = lambda: {str(n): n for n in range(62) if n != 7}
    assert unused_ids(policy)[0] == 7


@pytest.mark.parametrize("adapter", [None, LoRA(rank=2)], ids=["whole", "lora"])
def test_padding_beyond_the_embedding_gets_a_row_where_the_marker_exists(tmp_path, adapter):
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|response_start|>"]})
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    config = tiny_config("llama")
    config.vocab_size = tokenizer.pad_token_id  # all tokens but the last
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    policy = Policy(str(tmp_path), adapter=adapter)
    assert not policy.marker_is_new
    policy.load()
    pad = policy.tokenizer.pad_token_id
    rows = policy.network.get_input_embeddings().weight
    assert len(rows) == pad + 1
    assert torch.equal(rows[pad], rows[policy.tokenizer.eos_token_id])
    prompts = make_prompts(policy, QUESTIONS, ANSWERS)
    prompts.prompt_ids[~prompts.prompt_mask] = pad
    rollouts = assemble(prompts, TransformersEngine().generate(policy, request(policy, prompts)), policy.markup)
    assert policy.score(rollouts).logprobs.isfinite().all()


def test_models_with_a_table_of_positions_are_known(tmp_path):
    limits = {family: position_limit(Policy(save_tiny(tmp_path / family, family)).load().network)
              for family in ("gpt2", "llama", "qwen3")}  # fmt: skip
    assert limits == {"gpt2": 256, "llama": None, "qwen3": None}


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """GPT-2 with 40 positions."""
    place = tmp_path_factory.mktemp("short")
    config = tiny_config("gpt2")
    config.n_positions = 40
    AutoModelForCausalLM.from_config(config).save_pretrained(place)
    AutoTokenizer.from_pretrained(BASE).save_pretrained(place)
    return str(place)


def test_rows_that_need_more_positions_are_refused_before_sampling(short, trainer):
    settings = {"aggregator": GeometricMean(), "policy": Policy(short)}
    module = nrt_module(sampling=Sampling(group_size=2, max_trace_tokens=30), **settings)
    with pytest.raises(InputError, match=r"data\.train: .* 40 positions.*max_trace_tokens \(30\)"):
        trainer(max_steps=1).fit(module, registers())
    module = nrt_module(sampling=Sampling(group_size=2, max_trace_tokens=3), **settings)
    run = trainer(max_steps=1, limit_val_batches=1)
    run.fit(module, registers())
    assert run.global_step == 1
    run = trainer(max_steps=1, limit_val_batches=1)
    run.fit(SFTModule(Policy(short)), registers())
    assert run.global_step == 1


def test_a_request_that_needs_more_positions_is_refused_before_compute(short):
    policy = Policy(short).load()
    prompts = make_prompts(policy, QUESTIONS, ANSWERS)
    asked = request(policy, prompts)
    asked.max_new_tokens = 40
    policy.network.forward = None  # nothing runs
    with pytest.raises(InputError, match=r"has 40 positions.*40 new ones"):
        TransformersEngine().generate(policy, asked)
