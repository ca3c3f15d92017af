"""Every change of the weights is seen, whoever writes them, and nothing else."""

from __future__ import annotations

import pytest
import torch
from tiny import BASE, sampled
from torch import nn

from nrt_lightning import FourBit, LoRA, Policy
from nrt_lightning.models.policy import weights_state as module
from nrt_lightning.models.policy.weights_state import checksum, weights_state


class Unseen(torch.optim.Optimizer):
    """Writes past torch, as optimizers of bitsandbytes do."""

    def __init__(self, params) -> None:
        super().__init__(params, {})

    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.detach().numpy()[...] += 1


OPTIMIZERS = {
    "foreach": lambda params: torch.optim.AdamW(params, lr=1e-3, foreach=True),
    "fused": lambda params: torch.optim.AdamW(params, lr=1e-3, fused=True),
    "one by one": lambda params: torch.optim.SGD(params, lr=1e-3, foreach=False),
    "unseen": Unseen,
}


def first(policy: Policy) -> nn.Parameter:
    return next(policy.parameters())


@torch.no_grad()
def in_place(policy: Policy) -> None:
    first(policy)[1, 2] += 1e-3


def through_data(policy: Policy) -> None:
    first(policy).data.add_(1e-3)


def assigned(policy: Policy) -> None:
    first(policy).data = first(policy).data * 2


def replaced(policy: Policy) -> None:
    policy.network.model.norm.weight = nn.Parameter(policy.network.model.norm.weight.detach() * 2)


def loaded(policy: Policy) -> None:
    policy.load_state_dict(Policy(BASE, weights="random").load().state_dict())


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_step_of_any_optimizer_is_seen(policy, optimizer):
    before = weights_state(policy)
    policy.score(sampled(policy)).logprobs.sum().backward()
    assert weights_state(policy) == before
    optimizer(policy.parameters()).step()
    assert all(new != old for new, old in zip(weights_state(policy), before))


@pytest.mark.parametrize("change", [in_place, through_data, assigned, replaced, loaded])
def test_a_change_without_an_optimizer_is_seen(policy, change):
    before = weights_state(policy)
    change(policy)
    assert weights_state(policy) != before


def test_the_same_weights_have_the_same_state(policy):
    before = weights_state(policy)
    with policy.evaluating():
        policy.score(sampled(policy))
    policy.load_state_dict(policy.state_dict())
    assert weights_state(policy) == before == weights_state(Policy(BASE).load())


def test_an_adapters_weights_and_its_base_are_seen():
    policy = Policy(BASE, adapter=LoRA(rank=2), quantization=FourBit()).load()
    for weight in (next(p for p in policy.parameters() if p.requires_grad == trained) for trained in (True, False)):
        before = weights_state(policy)
        weight.data.flatten()[-1:] += 1
        assert sum(new != old for new, old in zip(weights_state(policy), before)) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.uint8])
@pytest.mark.parametrize("shape", [(), (7,), (3, 5), (33, 8)])
def test_every_value_counts(dtype, shape, monkeypatch):
    odd = module.factors(torch.device("cpu"))[:16]  # so that there are several blocks
    monkeypatch.setattr(module, "factors", lambda device: odd)
    weight = torch.randint(1, 100, shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    seen = {checksum(weight), checksum(weight * 2)}
    for i in range(weight.numel()):
        changed = weight.clone()
        changed.view(-1)[i] += 1
        seen.add(checksum(changed))
    if shape == (33, 8):
        seen |= {checksum(weight.T), checksum(weight.roll(1)), checksum(weight.roll(16 * 4 // weight.element_size()))}
        assert len(seen) == weight.numel() + 5
    assert len(seen) >= weight.numel() + 2
    assert checksum(weight) == checksum(weight.clone())


def test_no_values_have_a_checksum():
    assert checksum(torch.zeros(0, 4)) == 0
