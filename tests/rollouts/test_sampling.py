import pytest
import torch

from nrt_lightning.rollouts.sampling import draw, restrict, sample


def chi_square_z(counts, probs):
    """Deviation of the chi-square statistic in standard deviations, by Wilson and Hilferty's approximation."""
    expected = probs * counts.sum()
    big = expected >= 5  # the others together are one bin more
    observed = torch.cat([counts[big], counts[~big].sum()[None]])
    expected = torch.cat([expected[big], expected[~big].sum()[None]])
    observed, expected = observed[expected > 0], expected[expected > 0]
    freedom = len(expected) - 1
    statistic = ((observed - expected) ** 2 / expected).sum().item()
    return ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / (2 / (9 * freedom)) ** 0.5


SETTINGS = [{}, {"temperature": 0.7}, {"top_k": 50}, {"top_p": 0.8}, {"top_k": 50, "top_p": 0.6}]
CASES = [(1000, settings) for settings in SETTINGS] + [
    pytest.param(128_256, settings, marks=pytest.mark.slow) for settings in (SETTINGS[0], SETTINGS[4])
]


@pytest.mark.parametrize(("vocabulary", "settings"), CASES)
def test_draws_follow_the_distribution(vocabulary, settings):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, vocabulary, generator=generator) * 4
    logprobs = restrict(logits, **settings)
    exact = (logits.double() / settings.get("temperature", 1.0)).softmax(-1)[0]
    ordered, index = exact.sort(descending=True)
    if "top_k" in settings:
        ordered[settings["top_k"] :] = 0
        ordered /= ordered.sum()
    if "top_p" in settings:
        ordered[ordered.cumsum(0) - ordered >= settings["top_p"]] = 0
        ordered /= ordered.sum()
    probs = torch.zeros_like(exact).scatter(0, index, ordered)
    torch.testing.assert_close(logprobs.exp()[0].double(), probs, atol=1e-6, rtol=1e-3)
    uniform = torch.rand(8000, generator=generator)
    tokens = torch.cat([draw(logprobs.expand(len(u), -1), u) for u in uniform.split(250)])
    counts = torch.bincount(tokens, minlength=vocabulary).double()
    assert counts[probs == 0].sum() == 0
    assert abs(chi_square_z(counts, probs)) < 4


def test_wrong_draws_are_noticed():
    probs = torch.full((100,), 0.01, dtype=torch.double)
    counts = torch.full((100,), 200.0, dtype=torch.double)
    counts[:50] = 300
    assert chi_square_z(counts, probs) > 10


def test_no_token_of_probability_zero_at_the_ends():
    logprobs = torch.tensor([[0.0, 0.5, 0.5, 0.0]]).log().expand(2, -1)
    assert draw(logprobs, torch.tensor([0.0, 1 - 2**-24])).tolist() == [1, 2]


def test_top_k_one_and_tiny_top_p_are_greedy():
    logits = torch.randn(5, 30)
    for settings in ({"top_k": 1}, {"top_p": 1e-6}):
        tokens = draw(restrict(logits, **settings), torch.rand(5))
        assert torch.equal(tokens, logits.argmax(-1))


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_few_rows_at_a_time_give_what_all_rows_give(settings, monkeypatch):
    logits, uniform = torch.randn(23, 300, dtype=torch.bfloat16), torch.rand(23)
    whole = sample(logits, uniform, **settings)
    monkeypatch.setattr("nrt_lightning.functional.logits.IN_CACHE", 5 * 300)
    parts = sample(logits, uniform, **settings)
    logprobs = restrict(logits, **settings)
    tokens = draw(logprobs, uniform)
    for found in (whole, parts):
        assert torch.equal(found[0], tokens)
        assert torch.equal(found[1], logprobs[range(23), tokens])
