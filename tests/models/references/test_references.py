import pytest
import torch
from models.adapters.test_lora import perturbed
from tiny import BASE, sampled, save_tiny

from nrt_lightning import (
    AdapterDisabledReference,
    FourBit,
    FrozenReference,
    InputError,
    LoRA,
    NoReference,
    NRTLoss,
    NRTModule,
    Policy,
    QuantizedReference,
)
from nrt_lightning.models.scoring.base import positions


def test_frozen_reference_is_the_policy_before_training(policy):
    rollouts = sampled(policy)
    reference = FrozenReference()
    reference.load(policy)
    before = policy.score(rollouts).logprobs.detach()
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.05)
    logprobs = reference.logprobs(rollouts)
    torch.testing.assert_close(logprobs, before)
    assert not logprobs.requires_grad
    assert not torch.allclose(policy.score(rollouts).logprobs, before)


def test_reference_of_a_live_policy_is_a_copy(policy):
    policy.live = True
    reference = FrozenReference()
    reference.load(policy)
    assert reference.frozen[0].network is not policy.network


def test_reference_of_random_weights_is_these_random_weights():
    policy = Policy(BASE, weights="random").load()
    reference = FrozenReference()
    reference.load(policy)
    rollouts = sampled(policy)
    torch.testing.assert_close(reference.logprobs(rollouts), policy.score(rollouts).logprobs.detach())


def test_reference_is_in_no_module_tree():
    module = NRTModule(Policy(BASE), loss=NRTLoss(kl_coef=0.1), reference=FrozenReference())
    module.configure_model()
    assert module.method.reference.frozen
    alone = NRTModule(Policy(BASE))
    alone.configure_model()
    assert module.state_dict().keys() == alone.state_dict().keys()
    assert len(list(module.parameters())) == len(list(alone.parameters()))


def test_reference_is_not_loaded_when_its_coefficient_is_zero():
    module = NRTModule(Policy(BASE), reference=FrozenReference())
    module.configure_model()
    assert not module.method.reference.frozen


def test_no_reference_says_what_to_do(policy):
    with pytest.raises(InputError, match=r"model\.reference"):
        NoReference().logprobs(sampled(policy))
    with pytest.raises(InputError, match=r"kl_coef.*0\.1.*FrozenReference"):
        NRTModule(Policy(BASE), loss=NRTLoss(kl_coef=0.1))


def test_reference_with_another_vocabulary_is_refused(policy, tmp_path):
    directory = save_tiny(tmp_path, "llama")
    other = Policy(directory)
    other.tokenizer.add_tokens(["zebra"])
    other.tokenizer.save_pretrained(directory)
    with pytest.raises(InputError, match=r"reference\.model"):
        FrozenReference(model=directory).load(policy)


def difference(reference, rollouts, expected):
    mask = rollouts.segments.completion_mask
    return (reference.logprobs(rollouts) - expected)[mask].abs().max()


@pytest.mark.parametrize("quantization", [None, FourBit()])
def test_the_policy_without_its_adapter_is_the_base_bit_for_bit(quantization):
    base = Policy(BASE, quantization=quantization).load()
    policy = perturbed(Policy(BASE, adapter=LoRA(rank=4, dropout=0.5), quantization=quantization).load())
    rollouts = sampled(base)
    reference, full = AdapterDisabledReference(), FrozenReference()
    for each in (reference, full):
        each.load(policy)
    with base.evaluating():
        expected = base.score(rollouts).logprobs
    scores = policy.score(rollouts)  # the reference comes between the forward and the backward pass
    assert torch.equal(reference.logprobs(rollouts), expected)
    assert difference(full, rollouts, expected) < 1e-6
    assert not torch.allclose(scores.logprobs, expected, atol=1e-2)
    scores.logprobs.sum().backward()
    assert all(p.grad is not None and p.requires_grad for n, p in policy.named_parameters() if "lora" in n)
    assert policy.training
    assert all(module.training for module in policy.modules())


def test_a_reference_that_needs_an_adapter_is_refused_without_one():
    with pytest.raises(InputError, match=r"AdapterDisabledReference.*policy\.adapter"):
        NRTModule(Policy(BASE), reference=AdapterDisabledReference())


def test_four_bits_stay_near_the_full_reference(policy):
    """The bound that docs/adapters.md states: 0.0073 nats a trace token were measured on more questions."""
    rollouts = sampled(policy, group_size=8)
    full, quantized = FrozenReference(), QuantizedReference()
    distributions = []
    for reference in (full, quantized):
        reference.load(policy)
        ids = torch.cat([rollouts.prompt_ids[rollouts.group_ids], rollouts.completion_ids], dim=1)
        mask = torch.cat([rollouts.prompt_mask[rollouts.group_ids], rollouts.segments.completion_mask], dim=1)
        inputs = {"input_ids": ids, "attention_mask": mask.long(), "position_ids": positions(mask)}
        with torch.no_grad():
            logits = reference.frozen[0].network(**inputs).logits[:, rollouts.prompt_ids.shape[1] - 1 : -1]
        distributions.append(logits.log_softmax(dim=-1))
    kl = (distributions[0].exp() * (distributions[0] - distributions[1])).sum(dim=-1)  # [N, C]
    assert 1e-5 < kl[rollouts.segments.trace_mask].mean() < 0.02
    assert not quantized.logprobs(rollouts).requires_grad


def test_quantized_reference_is_in_no_module_tree():
    module = NRTModule(Policy(BASE), loss=NRTLoss(kl_coef=0.1), reference=QuantizedReference())
    module.configure_model()
    assert any("Linear4bit" in type(m).__name__ for m in module.method.reference.frozen[0].modules())
    alone = NRTModule(Policy(BASE))
    alone.configure_model()
    assert module.state_dict().keys() == alone.state_dict().keys()
    assert len(list(module.parameters())) == len(list(alone.parameters()))


def test_quantized_reference_of_a_live_policy_is_that_of_its_files(policy):
    rollouts = sampled(policy)
    read, live = QuantizedReference(), QuantizedReference()
    read.load(policy)
    policy.live = True
    live.load(policy)
    assert torch.equal(read.logprobs(rollouts), live.logprobs(rollouts))
    assert not any("4bit" in type(m).__name__ for m in policy.modules())


def test_random_weights_are_copied_not_drawn_again():
    policy = Policy(BASE, weights="random").load()
    rollouts = sampled(policy)
    reference = FrozenReference()
    reference.load(policy)
    assert difference(reference, rollouts, policy.score(rollouts).logprobs.detach()) < 1e-6
    adapted = Policy(BASE, weights="random", adapter=LoRA(rank=2)).load()
    with pytest.raises(InputError, match=r"QuantizedReference.*AdapterDisabledReference"):
        QuantizedReference().load(adapted)


def test_a_reference_may_have_a_device_of_its_own(policy):
    reference = FrozenReference(device="meta")
    policy.live = True
    reference.load(policy)
    assert reference.frozen[0].device.type == "cpu"  # a copy; it moves at its first use
    with pytest.raises((NotImplementedError, RuntimeError)):  # nothing can be computed there, so it was there
        reference.logprobs(sampled(policy))
    assert reference.frozen[0].device.type == "meta"
