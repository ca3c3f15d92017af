"""Rows that share their prompt's keys and values get the tokens that they get with a copy of them."""

import dataclasses

import pytest
import torch
from test_engine import conditional_logprobs, request_for
from tiny import save_tiny
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from nrt_lightning import Policy, TransformersEngine
from nrt_lightning.rollouts import transformers_engine
from nrt_lightning.rollouts.shared_decoding import SharedDecoder, sharing_refusal


@pytest.fixture
def made(monkeypatch):
    """The decoders that share prompts, of however few numbers."""
    decoders = []
    monkeypatch.setattr(transformers_engine, "LEAST_SAVED", 1)
    begin = SharedDecoder.__init__
    monkeypatch.setattr(SharedDecoder, "__init__", lambda self, *args: (decoders.append(self), begin(self, *args))[-1])
    return decoders


def both(policy, monkeypatch, **settings):
    """What is sampled with shared keys and values, and with copies."""
    request = dataclasses.replace(request_for(policy, max_new_tokens=24), **settings)
    shared = TransformersEngine().generate(policy, request)
    monkeypatch.setattr(transformers_engine, "shares_prompts", lambda *_: False)
    return shared, TransformersEngine().generate(policy, request)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral", "gemma", "cohere", "gpt2"])
def test_the_same_tokens(family, tmp_path, monkeypatch, made):
    policy = Policy(save_tiny(tmp_path, family)).load()
    shared, copied = both(policy, monkeypatch, group_size=5)
    assert made
    assert torch.equal(shared.token_ids, copied.token_ids)
    torch.testing.assert_close(shared.logprobs, copied.logprobs, atol=3e-5, rtol=1e-4)


@pytest.mark.parametrize("counts", [[2, 2, 9], [1, 7, 3]])
def test_the_same_tokens_as_rows_and_prompts_leave(policy, monkeypatch, made, counts):
    """The embedded base ends many texts within 24 tokens, so that groups become uneven and prompts disappear."""
    kept = []
    keep = SharedDecoder.keep
    monkeypatch.setattr(
        SharedDecoder, "keep", lambda self, rows: (keep(self, rows), kept.append((self.full, len(self.mask))))
    )
    shared, copied = both(policy, monkeypatch, counts=counts)
    assert torch.equal(shared.token_ids, copied.token_ids)
    assert torch.equal(shared.stopped, copied.stopped)
    torch.testing.assert_close(shared.logprobs, copied.logprobs, atol=3e-5, rtol=1e-4)
    assert not all(full for full, _ in kept)
    assert any(prompts < 3 for _, prompts in kept)


def test_in_half_precision_log_probs_are_as_near_to_float32_as_with_copies(llama_dir, monkeypatch, made):
    policy = Policy(llama_dir, dtype="bfloat16").load()
    exact = Policy(llama_dir).load()
    shared, copied = both(policy, monkeypatch)
    assert made

    request = request_for(exact)

    def error(out):
        """Of the log-probs of the sampled tokens."""
        found = []
        for row in range(len(out)):
            logprobs, written = conditional_logprobs(exact, request, out, row)
            expected = logprobs.gather(-1, written[:, None])[:, 0]
            found.append(out.logprobs[row][out.token_mask[row]] - expected)
        return torch.cat(found).std()

    assert error(shared) < 1.2 * error(copied)


def test_under_mixed_precision(llama_dir, monkeypatch, made):
    policy = Policy(llama_dir).load()
    with torch.autocast("cpu", torch.bfloat16):
        shared, copied = both(policy, monkeypatch)
    assert made
    assert (shared.logprobs[:, 0] - copied.logprobs[:, 0]).abs().max() == 0, "of the prompts"
    same = (shared.token_ids[:, :2] == copied.token_ids[:, :2]).all(dim=1)
    assert same.any()
    assert (shared.logprobs[same, 1] - copied.logprobs[same, 1]).abs().max() < 0.1


def test_keys_and_values_of_a_prompt_are_there_once(llama_dir, made):
    policy = Policy(llama_dir).load()
    request = request_for(policy, group_size=16, max_new_tokens=12)
    TransformersEngine(drop_share=1.0).generate(policy, request)
    decoder = made[-1]
    prompts, width = request.prompt_ids.shape
    for (keys, values), layer in zip(decoder.prompts, decoder.cache.layers, strict=True):
        assert keys.shape[0] == values.shape[0] == prompts
        assert keys.shape[3] == values.shape[2] == width
        assert layer.keys.shape[0] == 16 * prompts
        assert layer.keys.shape[2] < 12, "new tokens alone"


def test_no_step_makes_a_mask(llama_dir, monkeypatch, made):
    policy = Policy(llama_dir).load()
    request = request_for(policy)
    TransformersEngine().generate(policy, request)  # the first use tries the decoders
    masks = []
    interface = ALL_MASK_ATTENTION_FUNCTIONS["sdpa"]
    monkeypatch.setitem(ALL_MASK_ATTENTION_FUNCTIONS, "sdpa", lambda *a, **k: masks.append(1) or interface(*a, **k))
    made.clear()
    TransformersEngine().generate(policy, request)
    assert made
    assert len(masks) <= 1, "of the prompts"


def test_one_row_a_prompt_shares_nothing(llama_dir, made):
    policy = Policy(llama_dir).load()
    TransformersEngine().generate(policy, request_for(policy, group_size=1))
    assert not made


def test_few_numbers_are_copied(llama_dir, made, monkeypatch):
    policy = Policy(llama_dir).load()
    request = request_for(policy, group_size=5)
    saved = 2 * 2 * 8 * request.prompt_ids.shape[1] * 3 * 4  # keys and values, heads, size, tokens, prompts, copies
    TransformersEngine().generate(policy, request)  # the first use tries the decoders
    for least, shared in ((saved + 1, False), (saved, True)):
        monkeypatch.setattr(transformers_engine, "LEAST_SAVED", least)
        made.clear()
        TransformersEngine().generate(policy, request)
        assert bool(made) == shared


def test_other_attention_has_copies(llama_dir, tmp_path, made):
    eager = Policy(llama_dir, attn_implementation="eager").load()
    assert "eager" in sharing_refusal(eager.network, 64)
    assert len(TransformersEngine().generate(eager, request_for(eager))) == 12
    windows = Policy(save_tiny(tmp_path, "mistral")).load()
    windows.network.config.sliding_window = 8
    assert " 8 " in sharing_refusal(windows.network, 64)
    assert len(TransformersEngine().generate(windows, request_for(windows))) == 12
    assert not made


def test_a_model_that_attends_otherwise_is_found_and_has_copies(llama_dir, monkeypatch, caplog, made):
    policy = Policy(llama_dir).load()
    request = request_for(policy)
    attend = SharedDecoder.attend
    monkeypatch.setattr(
        SharedDecoder, "attend", lambda self, layer, query, *rest: attend(self, layer, 2 * query, *rest)
    )
    found = TransformersEngine().generate(policy, request)
    assert "SharedDecoder is not used" in caplog.text
    assert "a growing cache" in caplog.text
    assert len(found) == 12
