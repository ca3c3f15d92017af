import pytest
import torch

from nrt_lightning.metrics import GainByDifficulty


def test_deciles_go_from_the_hardest_token_to_the_easiest():
    torch.manual_seed(0)
    baseline, mask = torch.rand(20, 15), torch.rand(20, 15) > 0.3
    confidence = baseline.sqrt()
    gains = GainByDifficulty()
    for rows in (slice(0, 7), slice(7, 20)):
        gains.update(confidence[rows].log(), baseline[rows].log(), mask[rows])
    found = gains.compute()
    order = sorted(zip(baseline[mask].tolist(), confidence[mask].tolist()))
    first, last = order[: len(order) // 10 + 1], order[-(len(order) // 10) :]
    assert len(order) % 10 > 0, "the first deciles hold one token more"
    assert found["baseline_decile_1"] == pytest.approx(sum(b for b, _ in first) / len(first))
    assert found["confidence_decile_10"] == pytest.approx(sum(c for _, c in last) / len(last))
    quotient = found["confidence_decile_1"] / found["baseline_decile_1"]
    assert found["gain_decile_1"] == pytest.approx(float(quotient))
    assert [found[f"gain_decile_{d}"] for d in range(1, 11)] == sorted(
        (found[f"gain_decile_{d}"] for d in range(1, 11)), reverse=True
    )


def test_nothing_outside_the_mask_matters_and_few_tokens_say_nothing():
    gains = GainByDifficulty()
    assert gains.compute() == {}
    values = torch.full((1, 12), -1.0)
    mask = torch.tensor([[True] * 9 + [False] * 3])
    gains.update(values, values, mask)
    assert gains.compute() == {}
    gains.update(torch.where(mask, values, torch.nan), torch.where(mask, values, torch.nan), mask)
    assert gains.compute()["gain_decile_5"] == pytest.approx(1)
