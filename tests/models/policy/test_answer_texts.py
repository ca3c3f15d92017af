"""Texts of answers that the policy wrote."""

from __future__ import annotations

import torch

from nrt_lightning import Policy
from nrt_lightning.models.policy.texts import decode_answers


def test_an_answer_that_repeats_the_marker_is_another_answer() -> None:
    """Otherwise a reward for the right text trains the policy to write the marker again."""
    policy = Policy("embedded:registers-base").load()
    tokenizer, [marker] = policy.tokenizer, policy.markup.marker_ids
    answer, end = tokenizer("d3,c0", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id
    rows = [[*answer, end], answer, [*answer, marker, end], [*answer, end, end]]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])
    right, cut, repeated, twice = decode_answers(policy, ids, mask)
    assert right == cut == "d3,c0"
    assert repeated == f"d3,c0{policy.markup.marker}"
    assert twice == f"d3,c0{tokenizer.eos_token}"
