"""A policy that ends its answers otherwise than the settings say is found out before training."""

from dataclasses import replace

import pytest
import torch
from tiny import make_prompts
from tools.preflight.test_verdict import GOOD, SETUP

from nrt_lightning.rollouts import Generations
from nrt_lightning.tools.preflight import report, verdict
from nrt_lightning.tools.preflight.endings import OTHER, WrittenEnd, written_end, written_ends


def generations(rows: list[list[int]]) -> Generations:
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])
    return Generations(ids, mask, mask.any(dim=1))


def test_what_follows_the_tokens_of_the_reference_answer(policy):
    prompts = make_prompts(policy, ["a1?a:"] * 5, ["a1", "a1", "a1,b2", "a1,b2", "a1"])
    a, one, comma, b, two, end = (*policy.tokenizer("a1,b2", add_special_tokens=False)["input_ids"], 2)
    answers = [[a, one, end], [a, one, comma, b], [a, one, comma, b, two, comma], [a, one, end], [a, one]]
    ends = written_ends(prompts, generations(answers), 1)
    assert ends.tolist() == [end, comma, comma, OTHER, OTHER]
    assert written_ends(prompts, generations([row[:2] for row in answers]), 1).tolist() == [OTHER] * 5
    found = written_end(ends, torch.tensor([0.5, 0.25, 0.25, 1, 1]).log(), policy.tokenizer)
    assert found == WrittenEnd(3, pytest.approx(1 / 3), ",", pytest.approx(2 / 3))
    assert written_end(torch.full((2, 2), OTHER), torch.zeros(2, 2), policy.tokenizer) is None


def test_an_end_that_the_base_does_not_write_is_a_knob():
    lines = replace(SETUP, markup=replace(SETUP.markup, end="\n\n", end_token=False))
    measures = replace(GOOD, setup=lines, end=WrittenEnd(40, 0.0002, "\n", 0.97))
    found = verdict(measures)
    assert [knob.partition(":")[0] for knob in found.knobs] == ["model.policy.answer_end"]
    assert r"'\n'" in found.knobs[0]
    assert r"'\n' in 97.0 %" in report(measures, found, "x").replace("\n  ", " ")
    assert verdict(replace(measures, end=WrittenEnd(40, 0.95, "\n\n", 0.97))).knobs == []
