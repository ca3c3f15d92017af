import pytest
import torch
from tiny import BASE, sampled, save_tiny

from nrt_lightning import FrozenReference, InputError, NoReference, NRTLoss, NRTModule, Policy


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


def test_reference_of_a_wrapped_policy_is_a_copy(policy):
    policy.settings = {}
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
    assert module.reference.frozen
    alone = NRTModule(Policy(BASE))
    alone.configure_model()
    assert module.state_dict().keys() == alone.state_dict().keys()
    assert len(list(module.parameters())) == len(list(alone.parameters()))


def test_reference_is_not_loaded_when_its_coefficient_is_zero():
    module = NRTModule(Policy(BASE), reference=FrozenReference())
    module.configure_model()
    assert not module.reference.frozen


def test_no_reference_says_what_to_do(policy):
    with pytest.raises(InputError, match=r"set model\.reference"):
        NoReference().logprobs(sampled(policy))
    with pytest.raises(InputError, match=r"kl_coef is 0.1.*Set reference to FrozenReference"):
        NRTModule(Policy(BASE), loss=NRTLoss(kl_coef=0.1))


def test_reference_with_another_vocabulary_is_refused(policy, tmp_path):
    directory = save_tiny(tmp_path, "llama")
    other = Policy(directory)
    other.tokenizer.add_tokens(["zebra"])
    other.tokenizer.save_pretrained(directory)
    with pytest.raises(InputError, match="another vocabulary"):
        FrozenReference(model=directory).load(policy)
