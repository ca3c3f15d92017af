import math

import pytest
import torch

from nrt_lightning import InputError
from nrt_lightning.metrics import prompt_dependence


def by_definition(logprobs, own):
    """The estimate written out, trace by trace."""
    prompts = len(logprobs[0])
    nats = [row[x] - math.log(sum(math.exp(value) for value in row) / prompts) for row, x in zip(logprobs, own)]
    return sum(nats) / len(nats) / math.log(prompts)


def test_it_is_the_mutual_information_over_its_largest_value():
    logprobs = [[-1.0, -4.0, -2.5], [-3.0, -2.0, -2.2], [-6.0, -5.0, -1.0], [-0.5, -3.0, -9.0]]
    own = [0, 1, 2, 0]
    found = prompt_dependence(torch.tensor(logprobs), torch.tensor(own))
    assert float(found.fraction) == pytest.approx(by_definition(logprobs, own), rel=1e-5)
    assert float(found.retrieval) == 1.0


def test_traces_that_two_prompts_share_tell_half_of_it():
    pairs = torch.tensor([[0.0, 0, -99, -99], [0, 0, -99, -99], [-99, -99, 0, 0], [-99, -99, 0, 0]])
    found = prompt_dependence(pairs, torch.arange(4))
    assert float(found.fraction) == pytest.approx(0.5, abs=1e-6)
    assert float(found.retrieval) == pytest.approx(0.5)


def test_a_template_tells_nothing_and_is_found_by_chance():
    found = prompt_dependence(torch.full((8, 4), -30.0), torch.arange(4).repeat(2))
    assert float(found.fraction) == pytest.approx(0, abs=1e-6)
    assert float(found.retrieval) == pytest.approx(1 / 4)


def test_long_traces_do_not_lose_the_difference():
    logprobs = torch.full((2, 2), -20_000.0) + torch.tensor([[0.0, -0.01], [-0.01, 0.0]])
    assert float(prompt_dependence(logprobs, torch.tensor([0, 1])).fraction) > 0.004


def test_one_prompt_is_not_enough():
    with pytest.raises(InputError, match=r"1 prompts.*2"):
        prompt_dependence(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long))
