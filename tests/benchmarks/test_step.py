import importlib.util

import pytest

from benchmarks.bound import bound_gflop
from benchmarks.step import main, ratios, report, summary
from benchmarks.workload import Workload


def side(rollout, learn, memory, sampled, gflop):
    seconds = {"rollout": rollout, **learn, "optimizer": 0.1, "other": 0.1}
    seconds["step"] = sum(seconds.values())
    run = {
        "seconds": [seconds] * 2,
        "sampled": [{"tokens": sampled, "ended": 3}] * 2,
        "memory_imported": 400.0,
        "memory_peak": 400.0 + memory,
    }
    parts = {"rollout": 1.0, "forward": 1.0, "backward": gflop - 2.0, "step": gflop}
    return summary([run, run, run]) | {"gflop": parts}


OURS = side(1.0, {"forward": 0.8, "backward": 1.0}, 600.0, 900, gflop=40.0)
TRL = side(2.0, {"reward": 1.0, "forward": 1.4, "backward": 3.0}, 1000.0, 1000, gflop=100.0)
BOUND = {"gflop": {"step": 100.0}, "matmul_rate": 100.0, "seconds": {"step": 1.0}}


def test_ratios():
    assert ratios(OURS, TRL, BOUND) == pytest.approx({
        "step_speedup": 7.6 / 3.0,
        "rollout_speedup": 900 / 500,
        "learn_speedup": 5.4 / 1.8,
        "gflop": 0.4,
        "peak_memory": 0.6,
        "over_bound": 3.0,
    })  # fmt: skip


def test_medians_are_of_the_processes():
    runs = [
        {
            "seconds": [{"rollout": s, "step": s}],
            "sampled": [{"tokens": 10, "ended": 1}],
            "memory_imported": 1.0,
            "memory_peak": m,
        }
        for s, m in ((1.0, 9.0), (2.0, 5.0), (9.0, 4.0))
    ]
    found = summary(runs)
    assert found["seconds"] == {"rollout": 2.0, "step": 2.0}
    assert found["rollout_tokens_per_second"] == 5
    assert found["memory"] == {"imported": 1.0, "peak": 5.0}


def test_the_report_shows_every_ratio():
    work = Workload()
    gflop = bound_gflop(work, 900, 3)
    bound = {"gflop": gflop, "matmul_rate": 100.0, "seconds": {name: value / 100 for name, value in gflop.items()}}
    found = ratios(OURS, TRL, bound)
    text = report({"sides": {"ours": OURS, "trl": TRL}, "bound": bound, "ratios": found})
    assert all(f"{name}: {value:.2f}" in text for name, value in found.items())
    assert "| rollout, CPU s " in text


def test_the_bound_of_one_prompt_and_one_trace():
    work = Workload(prompt_tokens=(10,), answer_tokens=(4,), group_size=1)
    found, body, head = bound_gflop(work, sampled=6, ended=1), work.body_parameters, work.head_parameters
    assert found["rollout"] == pytest.approx(2e-9 * ((10 + 5) * body + 6 * head))  # the end token is not read
    assert found["forward"] == pytest.approx(2e-9 * ((10 + 5 + 1 + 3) * body + (5 + 1 + 4) * head))
    assert found["backward"] == 2 * found["forward"]
    assert found["step"] == pytest.approx(sum(found.values()) - found["step"])


def test_without_trl_it_says_how_to_install_it(monkeypatch, capsys):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "trl" else real(name, *a))
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
    assert "pip install '.[bench]'" in capsys.readouterr().err
