"""Callbacks that a second run uses again know nothing of the first."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from short_runs import Recorder, nrt_module, registers, weights

from nrt_lightning import (
    AheadRollout,
    CollapseDetector,
    GroupNormalized,
    InitialBaseline,
    OnPolicyRollout,
    ResultsFile,
    RewardCorrectness,
)
from nrt_lightning.callbacks.non_finite_guard import NonFiniteGuard


class Interrupted(Exception):
    """Of a run that ends inside a window."""


class Ends(Recorder):
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if batch_idx == 1:
            raise Interrupted


@pytest.mark.parametrize("kind", [OnPolicyRollout, AheadRollout])
def test_a_run_after_an_interrupted_one_samples_its_own_window(quiet_trainer, kind):
    """The second run begins inside a window of the same size, where a stale one would fit."""

    def fit(callback, steps=4, extra=(), **settings):
        module = nrt_module()
        run = quiet_trainer(callbacks=[callback, *extra], max_steps=steps)
        run.fit(module, registers(window=4, batch_size=2), **settings)
        return weights(module)

    expected, used = fit(kind()), kind()
    with pytest.raises(Interrupted):
        fit(used, extra=[Ends()])
    found = fit(used)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_detector_measures_the_second_run_as_a_new_one_would(quiet_trainer):
    def fit(detector):
        quiet_trainer(callbacks=[detector], max_steps=4).fit(nrt_module(), registers())
        return [dataclasses.asdict(vitals) for vitals in detector.past], detector.alarms

    used = CollapseDetector(every_n_steps=1, patience=1)
    first = fit(used)
    used.alarms.append(99)
    assert fit(used) == (first[0], [step for step in first[1] if step != 99])
    assert len(first[0]) == 4


def test_reward_correctness_looks_again(quiet_trainer):
    callback = RewardCorrectness(rows=2)
    for _ in range(2):
        run = quiet_trainer(callbacks=[callback], limit_val_batches=1)
        run.validate(nrt_module(), registers(), verbose=False)
        assert "correctness/right" in run.callback_metrics


def test_results_and_guards_begin_anew(quiet_trainer, tmp_path):
    results, guard = ResultsFile("results.json", "run"), NonFiniteGuard()
    for place in ("one", "two"):
        run = quiet_trainer(callbacks=[results, guard], max_steps=1, default_root_dir=tmp_path / place)
        results.seconds, guard.skipped, guard.in_a_row = results.seconds + 1000, 2, 2
        module, data = nrt_module(), registers()
        run.fit(module, data)
        run.test(module, data, verbose=False)
        assert json.loads((tmp_path / place / "results.json").read_text())["run"]["seconds"] < 500
        assert guard.skipped == 0


def test_an_initial_baseline_is_that_of_the_policy_of_its_run(quiet_trainer, tmp_path):
    scorer = InitialBaseline()
    for seed in (0, 1):
        torch.manual_seed(seed)
        module = nrt_module(baseline_scorer=scorer, advantage=GroupNormalized(baseline="clip"))
        module.policy.load()
        with torch.no_grad():
            for parameter in module.policy.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        quiet_trainer(max_steps=1).fit(module, registers())
        assert scorer.policy[0] is module.policy
