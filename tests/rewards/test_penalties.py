from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from nrt_lightning.errors import InputError
from nrt_lightning.functional import K1, K2, K3
from nrt_lightning.rewards import KeepOverlong, KLPenalty, MaskOverlong, PenalizeOverlong

NAN = float("nan")


def traces(lengths, truncated, learned=None):
    mask = torch.arange(12) < torch.tensor(lengths)[:, None]
    return SimpleNamespace(
        segments=SimpleNamespace(trace_mask=mask), truncated=torch.tensor(truncated), learned=learned
    )


@pytest.mark.parametrize("kl", [K1(), K2(), K3()])
def test_the_penalty_is_the_sum_over_sampled_tokens(kl) -> None:
    policy, reference = torch.tensor([[-1.0, -2.0, NAN]]), torch.tensor([[-1.5, -0.5, -1.0]])
    mask = torch.tensor([[True, True, False]])
    each = [float(kl(policy[:, i], reference[:, i])) for i in range(2)]
    found = KLPenalty(0.2, kl)(torch.tensor([0.7]), policy, reference, mask)
    assert float(found) == pytest.approx(0.7 - 0.2 * sum(each))


def test_no_penalty_without_sampled_tokens() -> None:
    nothing = torch.zeros(2, 3)
    values = torch.tensor([0.1, 0.2])
    assert torch.equal(KLPenalty()(values, nothing - 1, nothing, nothing.bool()), values)


def test_soft_penalty_equals_the_paper() -> None:
    """Equation 13 of arXiv 2503.14476 with L_max = 10 and L_cache = 4."""
    lengths = list(range(11))
    values = PenalizeOverlong(1.0, soft_tokens=4).rewards(
        torch.zeros(11), traces(lengths, [n == 10 for n in lengths]), 10
    )
    expected = [0.0 if n <= 6 else (6 - n) / 4 for n in lengths]
    torch.testing.assert_close(values, torch.tensor(expected))


def test_only_truncated_traces_are_penalized_by_default() -> None:
    """A trace can also end with a marker exactly at the limit."""
    values = PenalizeOverlong(0.5).rewards(torch.ones(3), traces([10, 10, 3], [True, False, False]), 10)
    assert values.tolist() == [0.5, 1.0, 1.0]


def test_masking_does_not_change_rewards() -> None:
    values = torch.ones(3)
    assert torch.equal(MaskOverlong().rewards(values, traces([9, 9, 9], [True] * 3), 10), values)


def test_keeping_changes_nothing() -> None:
    rollouts, values = traces([10], [True]), torch.ones(1)
    assert KeepOverlong().loss_rows(rollouts) is None
    assert torch.equal(KeepOverlong().rewards(values, rollouts, 10), values)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: PenalizeOverlong(-1.0), "overlong.penalty=-1.0"),
        (lambda: PenalizeOverlong(soft_tokens=-2), "overlong.soft_tokens=-2"),
        (lambda: KLPenalty(-0.1), "kl_penalty.coef=-0.1"),
    ],
)
def test_negative_settings_are_refused(make, name) -> None:
    with pytest.raises(InputError, match=name):
        make()
