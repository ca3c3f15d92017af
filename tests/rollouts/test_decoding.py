"""Fixed-shape buffers sample the same tokens as a growing cache."""

import pytest
import torch
from test_engine import request_for
from tiny import save_tiny
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from nrt_lightning import InputError, Policy, TransformersEngine
from nrt_lightning.rollouts import decoding

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def check_same(policy, monkeypatch, room, **settings):
    request = request_for(policy, group_size=8, max_new_tokens=24, **settings)
    growing = TransformersEngine(fixed_shapes=False).generate(policy, request.to(policy.device))
    monkeypatch.setattr(decoding, "ROOM", room)
    fixed = TransformersEngine(fixed_shapes=True, check_every=2).generate(policy, request.to(policy.device))
    assert torch.equal(fixed.token_ids, growing.token_ids)
    assert torch.equal(fixed.token_mask, growing.token_mask)
    torch.testing.assert_close(fixed.logprobs, growing.logprobs, atol=3e-5, rtol=1e-4)


@pytest.mark.parametrize("room", [1, 256])
def test_same_tokens_as_growing(tiny_dir, monkeypatch, room):
    check_same(Policy(tiny_dir).load(), monkeypatch, room)


def test_same_tokens_as_rows_leave(policy, monkeypatch):
    """The embedded base ends many texts within 24 tokens."""
    kept = []
    keep = decoding.FixedDecoder.keep
    monkeypatch.setattr(
        decoding.FixedDecoder, "keep", lambda self, rows: (kept.append((len(self.ids), len(rows))), keep(self, rows))
    )
    check_same(policy, monkeypatch, 4)
    assert kept
    assert all(after <= before / 2 for before, after in kept), "rows leave when half have finished"


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("room", [1, 256])
def test_cuda_graphs_write_the_same_tokens(tiny_dir, monkeypatch, room):
    check_same(Policy(tiny_dir).load().cuda(), monkeypatch, room)


@pytest.mark.gpu
@GPU
def test_a_step_is_captured_a_few_times_a_rollout(llama_dir, monkeypatch):
    captures = []
    capture = decoding.FixedDecoder._capture
    monkeypatch.setattr(decoding.FixedDecoder, "_capture", lambda self: captures.append(1) or capture(self))
    policy = Policy(llama_dir).load().cuda()
    request = request_for(policy, group_size=16, max_new_tokens=64)
    TransformersEngine().generate(policy, request.to(policy.device))
    assert 1 <= len(captures) <= 8


def test_models_that_cannot_are_refused(llama_dir, tmp_path):
    eager = Policy(llama_dir, attn_implementation="eager").load()
    with pytest.raises(InputError, match=r"engine\.fixed_shapes.*sdpa.*eager"):
        TransformersEngine(fixed_shapes=True).generate(eager, request_for(eager))
    windows = Policy(save_tiny(tmp_path, "mistral")).load()
    windows.network.config.sliding_window = 8
    with pytest.raises(InputError, match=r"engine\.fixed_shapes.* 8 "):
        TransformersEngine(fixed_shapes=True).generate(windows, request_for(windows))
    assert len(TransformersEngine().generate(windows, request_for(windows))) == 12


def test_no_step_makes_a_mask_and_attention_converts_none(llama_dir, monkeypatch):
    """A mask is made once per batch. Transformers makes one per step, and attention an additive one per layer."""
    policy = Policy(llama_dir).load()
    request = request_for(policy, group_size=4, max_new_tokens=12)
    TransformersEngine().generate(policy, request)  # the first use tries the decoder
    made, seen = [], []
    interface = ALL_MASK_ATTENTION_FUNCTIONS["sdpa"]
    monkeypatch.setitem(ALL_MASK_ATTENTION_FUNCTIONS, "sdpa", lambda *a, **k: made.append(1) or interface(*a, **k))
    attend = torch.nn.functional.scaled_dot_product_attention

    def counted(query, *args, **kwargs):
        if query.shape[2] <= 2:  # of one token, whose heads of a group share their keys
            seen.append(kwargs["attn_mask"].dtype)
        return attend(query, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    TransformersEngine().generate(policy, request)
    assert len(made) <= 1
    assert len(seen) >= 11
    assert set(seen) == {torch.float32}
