"""Products of weights with what the forward passes hand them."""

import pytest
import torch
from tiny import ANSWERS, QUESTIONS, make_prompts
from torch.utils._python_dispatch import TorchDispatchMode

from nrt_lightning import Policy, Sampling
from nrt_lightning.models import PackedGroups, PromptCopies, PromptTree, SharedPrompt
from nrt_lightning.models.scoring.base import last_logits
from nrt_lightning.models.scoring.certainty import token_certainty
from nrt_lightning.rollouts import TransformersEngine, assemble
from nrt_lightning.rollouts.engine import trace_request

PRODUCTS = {torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.linear, torch.ops.aten.bmm}


class Products(TorchDispatchMode):
    """Counts matrix products, and notes the inputs of batched ones with a weight."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self.batched, self.count = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in PRODUCTS:
            self.count += 1
            pointers = {x.untyped_storage().data_ptr() for x in args if isinstance(x, torch.Tensor)}
            if func.overloadpacket is torch.ops.aten.bmm and pointers & self.weights:
                self.batched.append((args[0].shape, args[0].stride()))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("scoring", [PackedGroups(), SharedPrompt(), PromptTree(), PromptCopies()], ids=repr)
@pytest.mark.parametrize("rows", [1, 3])
def test_frozen_weights_are_multiplied_by_matrices(llama_dir, scoring, rows):
    """Torch multiplies a frozen weight by a strided batch in batched products, without its fast kernels on CPUs."""
    policy = Policy(llama_dir, scoring=scoring, dtype="bfloat16").load()
    policy.requires_grad_(False)
    prompts = make_prompts(policy, QUESTIONS[:rows], ANSWERS[:rows])
    with Products(policy.network) as products, torch.no_grad():
        request = trace_request(policy, prompts, Sampling(group_size=2, max_trace_tokens=6), seed=0)
        for fixed in (False, True):
            traces = TransformersEngine(fixed_shapes=fixed).generate(policy, request)
        rollouts = assemble(prompts, traces, policy.markup)
        policy.score(rollouts, baseline=True)
        token_certainty(policy.network, rollouts)
    assert products.count > 50
    assert products.batched == []


def test_last_logits_are_those_of_the_model(tiny_dir):
    policy = Policy(tiny_dir).load()
    prompts = make_prompts(policy, QUESTIONS, ANSWERS)
    inputs = {"input_ids": prompts.prompt_ids, "attention_mask": prompts.prompt_mask.long()}
    with policy.evaluating():
        expected = policy.network(**inputs).logits[:, -1]
        torch.testing.assert_close(last_logits(policy.network, inputs), expected)
        torch.testing.assert_close(policy.network(**inputs).logits[:, -1], expected, msg="the head is as before")
