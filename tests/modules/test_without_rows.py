"""Batches of ids alone: their texts are decoded."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from short_runs import nrt_module
from tiny import ANSWERS, QUESTIONS, make_prompts
from torch.utils.data import DataLoader

from nrt_lightning import SFTModule, TraceSamples


def sft_module(policy):
    return SFTModule(policy)


@pytest.fixture
def bare(policy):
    return dataclasses.replace(make_prompts(policy, QUESTIONS, ANSWERS), rows=[])


@pytest.mark.parametrize("kind", [nrt_module, sft_module])
def test_prompts_without_rows_are_evaluated_as_those_with_rows(policy, prompts, bare, kind):
    module = kind(policy=policy)
    ours, expected = module.evaluate(bare), module.evaluate(prompts)
    assert all(torch.equal(ours.outcomes[name], values) for name, values in expected.outcomes.items())
    assert [text.answer for text in ours.texts] == ANSWERS
    assert [text.question for text in ours.texts] == QUESTIONS


@pytest.mark.parametrize("kind", [nrt_module, sft_module])
def test_they_are_validated_and_predicted(policy, bare, trainer, kind):
    loader, module = DataLoader([bare], batch_size=None), kind(policy=policy)
    (values,) = trainer().validate(module, loader, verbose=False)
    assert 0 <= values["val/exact_match"] <= 1
    [rows] = trainer().predict(module, loader)
    assert [row["question"] for row in rows] == QUESTIONS


def test_their_traces_are_shown(policy, bare, trainer, tmp_path):
    made = trainer(callbacks=[TraceSamples(every_n_steps=1, questions=1)], max_steps=1)
    made.fit(nrt_module(policy=policy), DataLoader([bare], batch_size=None))
    [line] = (tmp_path / "samples.jsonl").read_text().splitlines()
    assert (json.loads(line)["question"], json.loads(line)["reference"]) == (QUESTIONS[0], ANSWERS[0])
