import dataclasses

import pytest
import torch
from taught import taught_policy
from tiny import ANSWERS, QUESTIONS, make_prompts

from nrt_lightning import RegisterPrograms, Sampling, TransformersEngine
from nrt_lightning.evaluation.probe import answers_after, probe, repeat
from nrt_lightning.signals.base import decode
from nrt_lightning.training.method import Method


def test_answers_are_those_the_policy_gives_alone_after_each_trace(policy):
    prompts = make_prompts(policy, QUESTIONS, ANSWERS)
    seen = probe(Method(policy, sampling=Sampling(group_size=3, max_trace_tokens=16)), prompts, seed=3)
    rollouts = seen.batch.rollouts
    assert seen.right.shape == (9,)
    for row in range(9):
        trace = rollouts.completion_ids[row][rollouts.segments.trace_mask[row]]
        prompt = prompts.prompt_ids[row // 3][prompts.prompt_mask[row // 3]]
        ids = torch.cat([prompt, trace, torch.tensor([policy.markup.marker_ids[0]])]).unsqueeze(0)
        with policy.evaluating():
            out = policy.network.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        written = policy.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()
        assert bool(seen.right[row]) == (written == ANSWERS[row // 3] and int(out[0, -1]) in policy.eos_ids)


def test_rows_that_check_pieces_are_judged_by_these(policy):
    prompts = make_prompts(policy, QUESTIONS, ANSWERS)
    method = Method(policy, sampling=Sampling(group_size=3, max_trace_tokens=16))
    strict = probe(method, prompts, seed=3)
    repeated = repeat(prompts, 3)
    answers = answers_after(policy, TransformersEngine(), repeated, strict.traces)
    texts = decode(policy, answers.token_ids, answers.token_mask)
    pieces = [(texts[0][1],), ("no answer says this",), ()]  # the last row checks none: the whole answer counts
    prompts.rows = [dataclasses.replace(row, checks=piece) for row, piece in zip(prompts.rows, pieces)]
    seen = probe(method, prompts, seed=3)
    assert seen.right.tolist() == [
        *(texts[0][1] in text for text in texts[:3]), *[False] * 3, *strict.right[6:].tolist()
    ]  # fmt: skip
    assert seen.right[0]
    assert not strict.right[0]


@pytest.mark.parametrize(("others", "least", "most"), [(False, 0.9, 1.0), (True, 0.0, 0.3)])
def test_right_is_told_from_wrong(others, least, most):
    policy = taught_policy(others)
    rows = RegisterPrograms("validation", 8).rows()
    prompts = make_prompts(policy, [row.question for row in rows], [row.answer for row in rows])
    seen = probe(Method(policy, sampling=Sampling(group_size=8, max_trace_tokens=16)), prompts, seed=3)
    assert least <= float(seen.right.float().mean()) <= most
