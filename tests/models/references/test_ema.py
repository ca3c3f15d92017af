import pytest
import torch
from tiny import BASE, sampled

from nrt_lightning import EMAReference, InputError, LoRA, Policy


def step(policy, reference, number, by=0.01):
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(by)
    reference.update(policy, number)


def loaded(policy, **settings):
    reference = EMAReference(**settings)
    reference.load(policy)
    return reference


def values(model):
    return [p.detach().clone() for p in model.parameters()]


def test_it_moves_towards_the_policy_every_n_steps(policy):
    reference = loaded(policy, update_rate=0.25, every_n_steps=2)
    expected = values(policy)
    for number in range(1, 6):
        step(policy, reference, number)
        if number in (2, 4):
            expected = [0.75 * e + 0.25 * p for e, p in zip(expected, values(policy))]
        torch.testing.assert_close(values(reference.frozen[0]), expected)


def test_rate_one_is_the_policy_itself(policy):
    reference = loaded(policy, update_rate=1.0, every_n_steps=1)
    step(policy, reference, 1)
    rollouts = sampled(policy)
    torch.testing.assert_close(reference.logprobs(rollouts), policy.score(rollouts).logprobs.detach())
    assert not any(p.requires_grad for p in reference.frozen[0].parameters())


def test_small_moves_are_kept_beside_a_policy_in_16_bits():
    policy = Policy(BASE, dtype="bfloat16").load()
    reference = loaded(policy, update_rate=0.001, every_n_steps=1)
    before = values(reference.frozen[0])
    step(policy, reference, 1, by=0.25)
    change = [(b - a).abs().mean() for a, b in zip(before, values(reference.frozen[0]))]
    assert all(1e-4 < c < 1e-3 for c in change)


def test_state_is_restored_exactly(policy):
    reference = loaded(policy, every_n_steps=1)
    step(policy, reference, 1)
    other = loaded(Policy(BASE).load(), every_n_steps=1)
    other.load_state_dict({name: value.clone() for name, value in reference.state_dict().items()})
    assert all(torch.equal(a, b) for a, b in zip(values(reference.frozen[0]), values(other.frozen[0])))


@pytest.mark.parametrize(("name", "value"), [("update_rate", 1.5), ("every_n_steps", 0)])
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(InputError, match=f"{name}={value}"):
        EMAReference(**{name: value})


def test_of_a_policy_with_an_adapter_the_adapter_moves():
    policy = Policy(BASE, adapter=LoRA(rank=2)).load()
    reference = loaded(policy, update_rate=1.0, every_n_steps=1)
    with torch.no_grad():
        for p in policy.parameters():
            if p.requires_grad:
                p.add_(0.02)
    reference.update(policy, 1)
    rollouts = sampled(policy)
    torch.testing.assert_close(reference.logprobs(rollouts), policy.score(rollouts).logprobs.detach())
    state = reference.state_dict()
    assert state
    assert sum(w.numel() for w in state.values()) == sum(p.numel() for p in policy.parameters() if p.requires_grad)
    other = loaded(Policy(BASE, adapter=LoRA(rank=2)).load(), update_rate=1.0, every_n_steps=1)
    other.load_state_dict(state)
    torch.testing.assert_close(other.logprobs(rollouts), reference.logprobs(rollouts))
