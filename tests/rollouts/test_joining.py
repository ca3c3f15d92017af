import dataclasses

import torch
from tiny import ANSWERS, QUESTIONS, make_prompts

from nrt_lightning.rollouts import GenerationRequest, TransformersEngine, assemble
from nrt_lightning.rollouts.joining import concat_groups, singles
from nrt_lightning.structures import Prompts, TensorStruct


def share_of(policy, questions, answers, seed=1) -> Prompts:
    prompts = make_prompts(policy, questions, answers)
    prompts.counted = torch.ones(len(prompts), dtype=torch.bool)
    stop = [policy.markup.marker_ids[0], *policy.eos_ids]
    request = GenerationRequest(prompts.prompt_ids, prompts.prompt_mask, 9, stop, 3, seed=seed)
    prompts.rollouts = assemble(prompts, TransformersEngine().generate(policy, request), policy.markup)
    scores = policy.score(prompts.rollouts, baseline=True)
    prompts.rollouts.old_scores = scores.apply(torch.Tensor.detach)
    return prompts


def assert_same(one, other) -> None:
    for place in dataclasses.fields(one):
        a, b = getattr(one, place.name), getattr(other, place.name)
        if isinstance(a, torch.Tensor):
            torch.testing.assert_close(a, b, rtol=0, atol=0, msg=place.name)
        elif isinstance(a, TensorStruct):
            assert_same(a, b)
        else:
            assert a == b


def test_splitting_and_joining_gives_the_same_back(policy):
    share = share_of(policy, QUESTIONS, ANSWERS)
    apart = singles([share])
    assert [len(group) for group in apart] == [1, 1, 1]
    assert {len(group.rollouts) for group in apart} == {3}
    assert_same(concat_groups(apart), share)


def test_groups_of_other_widths_score_as_before(policy):
    short, long = share_of(policy, QUESTIONS[1:2], ANSWERS[1:2]), share_of(policy, QUESTIONS, ANSWERS, seed=2)
    mixed = concat_groups([*singles([short]), *singles([long])[1:]])
    assert [row.question for row in mixed.rows] == [QUESTIONS[1], QUESTIONS[1], QUESTIONS[2]]
    scores = policy.score(mixed.rollouts, baseline=True)
    torch.testing.assert_close(scores.logprobs.detach(), mixed.rollouts.old_scores.logprobs, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        scores.baseline_logprobs, mixed.rollouts.old_scores.baseline_logprobs, atol=1e-5, rtol=1e-4
    )
