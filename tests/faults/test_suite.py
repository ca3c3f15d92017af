"""The suite of random kills: which runs there are, and its table."""

import signal

from faults.command_line import COMMAND_LINES
from faults.killed_runs import differing
from faults.scenarios import SCENARIOS
from faults.suite import Case, cases, table


def test_every_configuration_is_killed_and_the_same_kills_come_again():
    chosen = cases(200, 30)
    assert len(set(chosen)) == 200
    assert sum(case.by_command_line for case in chosen) == 30
    assert {case.scenario for case in chosen} == {*SCENARIOS, *COMMAND_LINES}
    for case in chosen:
        kills = case.kills(24, 2)
        assert kills == case.kills(24, 2)
        assert 1 <= len(kills) <= 4
        assert [kill.place for kill in kills] == sorted(kill.place for kill in kills)
    moments = {kill.moment for case in chosen for kill in case.kills(24, 1)}
    assert {"rollout", "forward", "backward", "optimizer", "saving", "validation"} <= moments


def test_the_table_counts_the_kills_that_came():
    kills = [{"number": int(signal.SIGKILL)}, {"number": int(signal.SIGTERM)}]
    found = [
        {"scenario": "a", "kills": kills, "came": 2, "equal": True},
        {"scenario": "a", "kills": kills, "came": 1, "equal": False},
        {"scenario": "b", "kills": kills, "came": 0, "equal": True},
    ]
    assert table(found).splitlines()[2:] == [
        "| a | 2 | 3 | 2, 1 | 1 |", "| b | 1 | 0 | 0, 0 | 1 |", "| **all** | 3 | 3 | 2, 1 | 2 |"
    ]  # fmt: skip


def test_a_difference_is_named():
    note = {"kind": "train", "place": 3, "weights": "a"}
    assert differing([note], [note, note]) == []
    assert "differs in ['weights']" in differing([note], [note | {"weights": "b"}])[0]
    assert "is missing" in differing([note], [])[0]
    assert "not in the whole run" in differing([], [note])[0]


def test_every_scenario_has_a_number_of_steps_that_ends():
    assert all(scenario.steps or scenario.trainer.get("max_epochs", 3) > 0 for scenario in SCENARIOS.values())
    assert Case("SFT", 0).by_command_line is False
