"""A decoder that a model does not take is found at its first use, and another one is used."""

from __future__ import annotations

import pytest
import torch
from test_engine import conditional_logprobs, request_for
from torch import nn

from benchmarks.architectures import build
from nrt_lightning import InputError, TransformersEngine
from nrt_lightning.models.scoring.self_check import HALF, least_of
from nrt_lightning.rollouts.decoder_check import DIFFERENCES
from nrt_lightning.rollouts.decoding import FixedDecoder, GrowingDecoder
from nrt_lightning.rollouts.transformers_engine import may_pad


def check_log_probs(policy, out, request):
    for row in range(len(out)):
        logprobs, written = conditional_logprobs(policy, request, out, row)
        expected = logprobs.gather(-1, written[:, None])[:, 0]
        torch.testing.assert_close(out.logprobs[row][out.token_mask[row]], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("new", [False, True])
def test_biases_by_position_take_no_masks_of_fixed_shape(new, caplog):
    """ALiBi of Falcon is made from a mask [A, L]; the masks of fixed shapes, the default on GPUs, are [A, 1, 1, L]."""
    policy = build("falcon", {"alibi": True, "new_decoder_architecture": new}).eval()
    request = request_for(policy, group_size=2)
    with pytest.raises(InputError, match=r"engine\.fixed_shapes is true.*FalconForCausalLM"):
        TransformersEngine(fixed_shapes=True).generate(policy, request)
    with policy.evaluating():
        assert not TransformersEngine()._fixed(policy.network, 30, on_gpu=True), "a GPU decodes it with a growing cache"
    assert "FixedDecoder is not used: for FalconForCausalLM" in caplog.text
    assert DIFFERENCES[policy.network][FixedDecoder] == float("inf")
    check_log_probs(policy, TransformersEngine().generate(policy, request), request)


class SeesPadding(nn.Module):
    def forward(self, hidden):
        return hidden + hidden.cumsum(1)


def test_a_model_that_sees_padding_decodes_prompts_of_equal_length_together(policy, caplog):
    policy.network.model.norm = nn.Sequential(policy.network.model.norm, SeesPadding())
    policy.eval()
    request = request_for(policy, group_size=2)  # prompts of different lengths
    check_log_probs(policy, TransformersEngine().generate(policy, request), request)
    assert DIFFERENCES[policy.network][GrowingDecoder] > 1
    assert "GrowingDecoder is not used: for LlamaForCausalLM its log-probs differ" in caplog.text
    assert "prompts of equal length" in caplog.text


def test_a_model_is_tried_once_without_random_numbers(policy):
    request, lengths = request_for(policy, group_size=2, max_new_tokens=3), []
    policy.network.get_input_embeddings().register_forward_hook(lambda m, args, out: lengths.append(args[0].shape[1]))
    before = torch.get_rng_state()
    TransformersEngine().generate(policy, request)
    first = len(lengths)
    TransformersEngine().generate(policy, request)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(lengths) - first == 3, "the prompts and two tokens"
    assert DIFFERENCES[policy.network][GrowingDecoder] < 1e-4


def test_in_half_precision_rounding_is_no_fault(policy, caplog):
    policy.network.to(torch.bfloat16)
    TransformersEngine().generate(policy, request_for(policy, group_size=2))
    assert "is not used" not in caplog.text


@pytest.mark.parametrize("fault", [False, True])
def test_in_half_precision_the_bound_follows_the_logits(policy, caplog, fault):
    """SmolLM2 has logits of 30 in bfloat16, whose last place is worth 0.23 nats: one unit was a fault on a GPU."""
    with torch.no_grad():
        policy.network.lm_head.weight *= 32

    def round_up(head, args, logits):  # as kernels of other shapes may
        return logits * (1 + 2**-7) if args[0].shape[1] == 1 else logits

    policy.network.lm_head.register_forward_hook(round_up)
    if fault:
        policy.network.model.norm = nn.Sequential(policy.network.model.norm, SeesPadding())
    policy.network.to(torch.bfloat16)
    TransformersEngine().generate(policy, request_for(policy, group_size=2))
    assert DIFFERENCES[policy.network][GrowingDecoder] > HALF
    assert ("GrowingDecoder is not used" in caplog.text) == fault


def test_under_mixed_precision_the_bound_is_that_of_the_logits_from_the_first_use_on(policy):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert policy.network.dtype == torch.float32
        assert may_pad(policy.network)
        assert least_of(policy.network) >= HALF, "as after scoring, so that a resumed run decides alike"
