"""Four-bit policies: what is quantized, and that sampling leaves their gradients right."""

import copy

import pytest
import torch
from models.adapters.test_lora import check_scoring, gradients, perturbed, trained
from tiny import BASE, sampled
from torch import nn

from nrt_lightning import FourBit, InputError, LoRA, PackedGroups, Policy, PromptTree, SharedPrompt

bitsandbytes = pytest.importorskip("bitsandbytes")


def four_bit_layers(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)}


def weights(layer):
    return bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)


def qlora(**settings):
    return perturbed(Policy(BASE, adapter=LoRA(rank=4), quantization=FourBit(**settings)).load())


def dequantized(policy):
    """A LoRA policy in float32 with the same weights: those that the 4 bits stand for, and the same adapter."""
    full = Policy(BASE, adapter=LoRA(rank=4)).load()
    full.load_state_dict(policy.state_dict())
    layers = dict(full.network.named_modules())
    for name, layer in four_bit_layers(policy.network).items():
        layers[name].weight.data = weights(layer).float()
    return full


def distance(a, b):
    """Relative distance of two dicts of tensors."""
    off = sum((a[name] - b[name]).square().sum() for name in b)
    return float((off / sum(b[name].square().sum() for name in b)).sqrt())


def test_linear_layers_are_quantized_and_nothing_else():
    network = qlora().network
    assert len(four_bit_layers(network)) == 3 * 7
    assert type(network.get_output_embeddings().original_module) is nn.Linear
    weight = network.model.layers[0].self_attn.q_proj.weight
    assert (weight.numel(), weight.dtype) == (64 * 64 // 2, torch.uint8)


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("double_quant", [True, False])
@pytest.mark.parametrize("storage_dtype", ["uint8", "bfloat16"])
def test_settings_reach_the_layers(quant_type, double_quant, storage_dtype):
    quantization = FourBit(
        quant_type=quant_type, double_quant=double_quant, compute_dtype="bfloat16", storage_dtype=storage_dtype
    )
    policy = Policy(BASE, adapter=LoRA(rank=2), quantization=quantization).load()
    layer = next(iter(four_bit_layers(policy.network).values()))
    state = layer.weight.quant_state
    assert (state.quant_type, state.nested) == (quant_type, double_quant)
    assert (layer.compute_dtype, layer.weight.dtype) == (torch.bfloat16, getattr(torch, storage_dtype))
    assert policy.score(sampled(policy)).logprobs.isfinite().all()


@pytest.mark.parametrize("double_quant", [True, False])
def test_live_weights_are_quantized_as_pretrained_ones_are(double_quant):
    quantization = FourBit(double_quant=double_quant)
    read = Policy(BASE, quantization=quantization).load().network
    live = quantization.quantize(Policy(BASE).load().network)
    ours, theirs = four_bit_layers(live), four_bit_layers(read)
    assert ours.keys() == theirs.keys()
    for name, layer in ours.items():
        assert torch.equal(weights(layer), weights(theirs[name])), name
        assert layer.compute_dtype == theirs[name].compute_dtype


def test_random_weights_can_be_quantized():
    policy = Policy(BASE, weights="random", adapter=LoRA(rank=2), quantization=FourBit()).load()
    assert len(four_bit_layers(policy.network)) == 3 * 7
    assert all(g.isfinite().all() for g in gradients(policy, sampled(policy))[1].values())


@pytest.mark.parametrize("scoring", [SharedPrompt(), PromptTree(), PackedGroups()])
def test_scoring_is_that_of_copies(scoring):
    policy = qlora()
    assert isinstance(policy.scoring.choose(policy.network, 99), PackedGroups)
    check_scoring(policy, scoring)


@pytest.mark.parametrize("double_quant", [True, False])
def test_gradients_after_a_rollout_are_those_before_it(double_quant):
    """Without `keep_layout` they are 99 % off on CPUs with AVX512-BF16 (docs/adapters.md)."""
    policy = qlora(double_quant=double_quant)
    expected = dequantized(policy)
    rollouts = sampled(expected)
    before, grads_before = gradients(policy, rollouts)
    sampled(policy)
    with policy.evaluating():
        evaluated = policy.score(rollouts).logprobs
    after, grads_after = gradients(policy, rollouts)
    assert torch.equal(before.logprobs, after.logprobs)
    assert torch.equal(before.logprobs.detach(), evaluated)
    assert distance(grads_after, grads_before) == 0
    exact, exact_grads = gradients(expected, rollouts)
    torch.testing.assert_close(after.logprobs, exact.logprobs, atol=1e-4, rtol=1e-4)
    assert distance(grads_after, exact_grads) < 1e-4


def test_weights_after_a_rollout_are_those_before_it():
    """What merging dequantizes; without `keep_layout` 145 % off on CPUs with AVX512-BF16."""
    policy = qlora()
    fresh = copy.deepcopy(policy)
    rollouts = sampled(policy)
    for before, after in zip(four_bit_layers(fresh).values(), four_bit_layers(policy).values()):
        assert torch.equal(weights(before), weights(after))
    merged = dequantized(policy).model.merge_and_unload()
    scores = PackedGroups()(merged, rollouts)
    torch.testing.assert_close(scores.logprobs, policy.score(rollouts).logprobs, atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(
    not bitsandbytes.functional.has_avx512bf16(), reason="this CPU has no AVX512-BF16: nothing is ever repacked"
)
def test_the_tests_of_rollouts_can_fail(monkeypatch):
    monkeypatch.setattr("nrt_lightning.models.policy.policy.keep_layout", lambda model: None)
    monkeypatch.setattr("nrt_lightning.models.scoring.best.is_right", lambda *_: True)  # it repacks too
    policy = qlora()
    rollouts = sampled(dequantized(policy))
    _, before = gradients(policy, rollouts)
    weight = weights(next(iter(four_bit_layers(policy).values())))
    sampled(policy)
    assert distance(gradients(policy, rollouts)[1], before) > 0.5
    broken = weights(next(iter(four_bit_layers(policy).values())))
    assert (broken - weight).norm() > weight.norm()


def test_gradients_reach_every_trained_weight_under_activation_checkpointing():
    policy = perturbed(Policy(BASE, adapter=LoRA(rank=4), quantization=FourBit(), activation_checkpointing=True).load())
    rollouts = sampled(policy)
    plain = qlora()
    got = gradients(policy, rollouts)[1]
    assert got.keys() == trained(policy).keys()
    assert distance(got, gradients(plain, rollouts)[1]) < 1e-4


def test_without_bitsandbytes_the_installation_is_named(monkeypatch):
    monkeypatch.setattr("nrt_lightning.models.adapters.extras.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"FourBit.*bitsandbytes.*pip install 'nrt-lightning\[qlora\]'"):
        Policy(BASE, adapter=None, quantization=FourBit())
