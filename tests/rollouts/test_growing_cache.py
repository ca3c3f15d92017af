"""The cache that grows in place equals transformers' DynamicCache."""

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, MistralConfig

from nrt_lightning.rollouts.growing_cache import ROOM, decoding_cache

CONFIG = LlamaConfig(num_hidden_layers=2, hidden_size=16, num_attention_heads=2)


def tokens(rows, length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, 2, length, 8, generator=generator) for _ in range(2)]


@pytest.mark.parametrize("steps", [3, ROOM + 5])
def test_holds_what_a_plain_cache_holds(steps):
    """Prefill, repeated rows, steps beyond the buffer, and dropped rows."""
    ours, plain = decoding_cache(CONFIG), DynamicCache(config=CONFIG)
    for cache in (ours, plain):
        for layer in range(2):
            cache.update(*tokens(3, 7, layer), layer)
        cache.batch_repeat_interleave(2)
        for step in range(steps):
            if step == steps // 2:
                cache.batch_select_indices(torch.tensor([0, 2, 5]))
            rows = 6 if step < steps // 2 else 3
            for layer in range(2):
                cache.update(*tokens(rows, 1, 10 + step + layer), layer)
    for mine, theirs in zip(ours.layers, plain.layers, strict=True):
        assert torch.equal(mine.keys, theirs.keys)
        assert torch.equal(mine.values, theirs.values)
    assert ours.get_seq_length() == plain.get_seq_length() == 7 + steps


def test_appending_copies_nothing_while_there_is_room():
    cache = decoding_cache(CONFIG)
    cache.update(*tokens(2, 5), 0)
    cache.update(*tokens(2, 1), 0)
    place = cache.layers[0].keys.data_ptr()
    for _ in range(ROOM):
        cache.update(*tokens(2, 1), 0)
        assert cache.layers[0].keys.data_ptr() == place
    cache.update(*tokens(2, 1), 0)
    assert cache.layers[0].keys.data_ptr() != place


def test_sliding_windows_stay_those_of_transformers():
    config = MistralConfig(num_hidden_layers=1, hidden_size=16, num_attention_heads=2, sliding_window=4)
    assert type(decoding_cache(config).layers[0]) is type(DynamicCache(config=config).layers[0])


def test_keys_and_values_have_the_type_of_attention():
    """Under bf16-mixed, rotary embeddings make keys float32, which attention would cast in every step."""
    cache = decoding_cache(CONFIG)
    keys, values = tokens(2, 5)
    with torch.autocast("cpu", torch.bfloat16):
        cache.update(keys, values.bfloat16(), 0)
        cache.update(*tokens(2, 1), 0)
    assert cache.layers[0].keys.dtype == cache.layers[0].values.dtype == torch.bfloat16
    assert torch.equal(cache.layers[0].keys[:, :, :5], keys.bfloat16())


def test_rows_that_stay_keep_their_room():
    """Otherwise the next token would copy all keys and values once more."""
    cache = decoding_cache(CONFIG)
    cache.update(*tokens(3, 5), 0)
    cache.update(*tokens(3, 1), 0)
    cache.layers[1:] = []
    cache.batch_select_indices(torch.tensor([0, 2]))
    place = cache.layers[0].keys.data_ptr()
    cache.update(*tokens(2, 1), 0)
    assert cache.layers[0].keys.data_ptr() == place
