import logging

import pytest
import torch
from torch.utils.data import DistributedSampler

from nrt_lightning.data import WindowSampler
from nrt_lightning.errors import InputError


def epoch(sampler, number):
    sampler.set_epoch(number)
    return list(sampler)


def flat(batches):
    """Rows of the windows' first steps."""
    return [row for batch in batches if batch.window.index == 0 for row in batch.rows]


def test_windows_repeat_their_rows():
    batches = list(WindowSampler(rows=25, batch_size=2, window=3))
    assert [(b.window.index, b.window.size) for b in batches] == [(i, 3) for i in range(3)] * 4
    assert all(len(batch.rows) == 6 for batch in batches)
    for start in range(0, 12, 3):
        assert batches[start].rows == batches[start + 1].rows == batches[start + 2].rows
    assert len(set(flat(batches))) == 24


@pytest.mark.parametrize(("rows", "batch_size", "window", "ranks"), [(40, 2, 2, 3), (7, 1, 1, 2), (64, 4, 4, 4)])
def test_ranks_are_disjoint_and_equally_long(rows, batch_size, window, ranks):
    samplers = [WindowSampler(rows, batch_size, window, num_replicas=ranks, rank=rank) for rank in range(ranks)]
    lists = [list(sampler) for sampler in samplers]
    assert [len(batches) for batches in lists] == [len(sampler) for sampler in samplers]
    assert len({len(batches) for batches in lists}) == 1
    seen = [row for batches in lists for row in flat(batches)]
    assert len(seen) == len(set(seen)) == rows // (batch_size * window * ranks) * (batch_size * window * ranks)
    assert set(seen) <= set(range(rows))


def test_shuffled_anew_in_every_epoch_by_seed_alone():
    sampler = WindowSampler(rows=30, batch_size=5)
    first, second = epoch(sampler, 0), epoch(sampler, 1)
    assert flat(first) != flat(second)
    assert sorted(flat(first)) == sorted(flat(second)) == list(range(30))
    torch.manual_seed(99)
    assert epoch(WindowSampler(rows=30, batch_size=5), 1) == second
    assert epoch(WindowSampler(rows=30, batch_size=5, seed=1), 1) != second


def test_left_out_rows_are_logged_and_differ_between_epochs(caplog):
    sampler = WindowSampler(rows=11, batch_size=4)
    with caplog.at_level(logging.INFO, "nrt_lightning"):
        left_out = [frozenset(range(11)) - set(flat(epoch(sampler, number))) for number in range(6)]
    assert {len(rows) for rows in left_out} == {3}
    assert len(set(left_out)) > 3
    assert [record.getMessage() for record in caplog.records][5].startswith("Pass 5 ")
    assert "3 of 11 rows" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, "nrt_lightning"):
        list(WindowSampler(rows=12, batch_size=4))
        list(WindowSampler(rows=22, batch_size=4, num_replicas=2, rank=1))
    assert not caplog.records


@pytest.mark.parametrize(
    "settings", [{}, {"passes": 2}, {"num_replicas": 2, "rank": 1}, {"limit": 4}, {"window_epochs": 3}], ids=str
)
def test_resume_from_every_position_equals_the_rest(settings):
    def sampler(start=0):
        return WindowSampler(rows=27, batch_size=2, window=2, start=start, **settings)

    used = sampler().used
    assert len(sampler(start=5)) == len(sampler())
    whole = [batch for number in range(3) for batch in epoch(sampler(), number)[:used]]
    for start in range(3 * used):
        resumed, first = sampler(start), start // used
        begun = list(resumed)  # as the trainer does, before it names the epoch
        assert begun == epoch(resumed, first)  # asked twice: the same
        rest = begun[: used - start % used]
        rest += [batch for number in range(first + 1, 3) for batch in epoch(resumed, number)[:used]]
        assert rest == whole[start:]


def test_passes_are_consecutive_epochs():
    one, two = WindowSampler(rows=9, batch_size=2), WindowSampler(rows=9, batch_size=2, passes=2)
    assert len(two) == 2 * len(one)
    assert epoch(two, 1) == epoch(one, 2) + epoch(one, 3)


def test_a_window_is_gone_through_several_times_in_the_same_order():
    once = list(WindowSampler(rows=12, batch_size=2, window=2))
    twice = list(WindowSampler(rows=12, batch_size=2, window=2, window_epochs=2))
    assert [b.rows for b in twice] == [b.rows for pair in zip(once[::2], once[1::2]) for b in (*pair, *pair)]
    assert [(b.window.index, b.window.epoch, b.window.first) for b in twice[:5]] == [
        (0, 0, True), (1, 0, False), (0, 1, False), (1, 1, False), (0, 0, True),
    ]  # fmt: skip


def test_lightning_leaves_it_alone():
    assert isinstance(WindowSampler(rows=4, batch_size=2), DistributedSampler)


def test_limit_as_a_share():
    assert WindowSampler(rows=16, batch_size=2, limit=0.5).used == 4
    assert WindowSampler(rows=16, batch_size=2, limit=100).used == 8
    assert len(WindowSampler(rows=16, batch_size=2, limit=0.5)) == 8  # the trainer takes the share itself


def test_bad_settings():
    with pytest.raises(InputError) as error:
        WindowSampler(rows=15, batch_size=2, window=4, num_replicas=2)
    for word in ("15 ", "processes=2", "batch_size=2", "window=4", "16"):
        assert word in str(error.value)
    with pytest.raises(InputError, match=r"limit_train_batches=6 .*6 of 16 .*window=4"):
        WindowSampler(rows=32, batch_size=2, window=4, limit=6)
    with pytest.raises(InputError, match=r"limit_train_batches=4 .*window=4 x window_epochs=2"):
        WindowSampler(rows=32, batch_size=2, window=4, limit=4, window_epochs=2)
    for name in ("batch_size", "window", "passes", "window_epochs"):
        with pytest.raises(InputError, match=f"{name}=0 "):
            WindowSampler(rows=9, **{"batch_size": 1, name: 0})


@pytest.mark.parametrize(("window", "epochs", "passes", "limit"), [(1, 1, 1, 1.0), (2, 1, 3, 1.0), (2, 2, 2, 12)])
def test_the_rows_of_the_next_window_are_known_before_their_turn(window, epochs, passes, limit):
    settings = {"seed": 3, "passes": passes, "num_replicas": 2, "rank": 1, "limit": limit, "window_epochs": epochs}
    sampler = WindowSampler(25, 2, window, **settings)
    given = {(number, step): batch.rows for number in (0, 1, 2) for step, batch in enumerate(epoch(sampler, number))}
    used = min(len(sampler), limit) if isinstance(limit, int) else len(sampler)
    for position in range(0, 3 * used, window * epochs):
        assert sampler.rows_at(position) == given[divmod(position, used)]


def test_a_micro_batch_of_all_ranks_holds_the_same_rows_however_many_they_are():
    def together(ranks, batch_size):
        samplers = [WindowSampler(40, batch_size, 2, num_replicas=ranks, rank=rank, seed=3) for rank in range(ranks)]
        for batches in zip(*samplers):
            step = batches[0].window.index
            yield [row for batch in batches for row in batch.rows[step * batch_size : (step + 1) * batch_size]]

    assert list(together(1, 8)) == list(together(2, 4)) == list(together(4, 2))
