"""Instructions that all prompts begin with are read once, and nothing else changes."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from test_engine import request_for

from benchmarks.measure import flop_counter
from benchmarks.workload import Workload, build_model
from nrt_lightning import Policy, TransformersEngine
from nrt_lightning.models.scoring.base import positions
from nrt_lightning.rollouts import prefill as module
from nrt_lightning.rollouts.decoding import forward
from nrt_lightning.rollouts.growing_cache import decoding_cache
from nrt_lightning.rollouts.prefill import common_tokens, prefill

WORK = Workload(vocabulary=64, hidden=32, intermediate=48, layers=2, heads=4, kv_heads=2)


def prompts(common: int, lengths: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    begin = torch.randint(4, 60, (common,), generator=generator)
    width = common + max(lengths)
    ids = torch.zeros(len(lengths), width, dtype=torch.long)
    for row, length in enumerate(lengths):
        own = torch.randint(4, 60, (length,), generator=generator)
        own[0] = 4 + row  # so that no more is common
        ids[row, width - common - length :] = torch.cat([begin, own])
    return ids, ids > 0


@pytest.mark.parametrize("lengths", [(5, 2, 9), (3, 3)])
def test_logits_are_those_of_whole_prompts(lengths: tuple[int, ...]) -> None:
    model = build_model(WORK).eval()
    ids, mask = prompts(20, lengths)
    assert common_tokens(ids, mask) == 20
    with torch.no_grad():
        found, kept = prefill(model, ids, mask, cache := decoding_cache(model.config))
        plain = forward(model, ids, mask.long(), positions(mask), decoding_cache(model.config))
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)
    assert kept.sum(dim=1).tolist() == mask.sum(dim=1).tolist()
    assert kept.shape[1] == cache.get_seq_length()


def test_flops_are_those_of_the_tokens_that_are_read() -> None:
    model = build_model(WORK).eval()
    ids, mask = prompts(100, (40, 40, 40, 40))
    counts = []
    for least in (16, 1000):
        module.LEAST, before = least, module.LEAST
        try:
            with torch.no_grad(), flop_counter() as counter:
                prefill(model, ids, mask, decoding_cache(model.config))
        finally:
            module.LEAST = before
        counts.append(counter.get_flop_counts()["Global"][torch.ops.aten.mm])
    heads = 2 * WORK.head_parameters
    assert counts[1] == 2 * WORK.body_parameters * 4 * 140 + 4 * heads
    assert counts[0] == 2 * WORK.body_parameters * (100 + 4 * 40) + 5 * heads


def test_the_same_texts_are_sampled(llama_dir, monkeypatch) -> None:
    policy = Policy(llama_dir).load()
    request = request_for(policy, group_size=4, max_new_tokens=12)
    begin = torch.arange(5, 37).expand(len(request.prompt_ids), -1)
    longer = [torch.cat([begin[0], ids[mask]]) for ids, mask in zip(request.prompt_ids, request.prompt_mask)]
    width = max(map(len, longer))
    ids = torch.stack([torch.cat([ids.new_zeros(width - len(ids)), ids]) for ids in longer])
    mask = torch.stack([torch.arange(width) >= width - len(ids) for ids in longer])
    request = dataclasses.replace(request, prompt_ids=ids, prompt_mask=mask)
    shared = TransformersEngine().generate(policy, request)
    monkeypatch.setattr(module, "LEAST", 1000)
    plain = TransformersEngine().generate(policy, request)
    assert torch.equal(shared.token_ids, plain.token_ids)
    torch.testing.assert_close(shared.logprobs, plain.logprobs, atol=3e-5, rtol=1e-4)
