import pytest
import torch
from short_runs import nrt_module, registers
from taught import taught_policy

from nrt_lightning import (
    ExactMatch,
    Format,
    FrozenReference,
    GeometricMean,
    GroupNormalized,
    InitialBaseline,
    InputError,
    KLPenalty,
    PenalizeOverlong,
    Policy,
    RegisterPrograms,
    RewardCorrectness,
    Sampling,
    SFTModule,
    WeightedSumOfSignals,
)
from nrt_lightning.evaluation.probe import probe
from nrt_lightning.metrics import reward_correctness

NAMES = {"right", "auroc", "kendall", "auroc_within", "kendall_within", "mixed_groups", "right_first",
         "right_first_by_chance"}  # fmt: skip
MODULE = "nrt_lightning.callbacks.reward_correctness"
SAMPLING = Sampling(group_size=8, max_trace_tokens=32, suppress_eos=True)


def validate(trainer, callback, module=None, **settings):
    made = trainer(callbacks=[callback], limit_val_batches=1.0)
    module = module or nrt_module(sampling=SAMPLING)
    made.validate(module, registers(val=RegisterPrograms("validation", 24), eval_batch_size=8), verbose=False)
    return {k.removeprefix("correctness/"): float(v) for k, v in made.callback_metrics.items() if "correctness/" in k}


def test_the_base_is_rewarded_for_traces_that_lead_to_right_answers(quiet_trainer):
    values = validate(quiet_trainer, RewardCorrectness(rows=24))
    assert set(values) == NAMES
    assert 0.03 < values["right"] < 0.5
    assert values["auroc_within"] > 0.9
    assert values["right_first"] > values["right_first_by_chance"] + 0.3


def test_it_is_the_modules_own_reward_of_the_first_rows(quiet_trainer, monkeypatch):
    seen = []
    monkeypatch.setattr(f"{MODULE}.probe", lambda *args: seen.append(probe(*args)) or seen[-1])
    module = nrt_module(sampling=SAMPLING, aggregator=GeometricMean())
    values = validate(quiet_trainer, RewardCorrectness(rows=12), module)
    assert [len(p.batch) for p in seen] == [8, 4]
    rewards, groups = [], []
    for place, p in enumerate(seen):
        answers = p.batch.rollouts.segments.answer_mask
        lengths = answers.sum(dim=1)
        rewards.append((p.scores.logprobs.where(answers, 0).sum(dim=1) / lengths).exp())
        groups.append(p.batch.rollouts.group_ids + 100 * place)
    expected = reward_correctness(torch.cat(rewards), torch.cat([p.right for p in seen]), torch.cat(groups))
    assert values == pytest.approx({name: float(value) for name, value in expected.items()}, abs=1e-6)


def test_nothing_is_claimed_of_answers_that_are_never_right(quiet_trainer, caplog):
    module = nrt_module(sampling=Sampling(group_size=2, max_trace_tokens=2))
    assert validate(quiet_trainer, RewardCorrectness(rows=2), module) == {"right": 0.0, "mixed_groups": 0.0}
    assert "none of the answers was right" in caplog.text


def test_looks_are_part_of_validations_and_as_far_apart_as_asked(quiet_trainer, monkeypatch):
    looks = []
    monkeypatch.setattr(f"{MODULE}.probe", lambda *args: looks.append(made.global_step) or probe(*args))
    callback = RewardCorrectness(every_n_steps=4, rows=2)
    made = quiet_trainer(callbacks=[callback], max_steps=8, limit_val_batches=1, val_check_interval=2)
    made.fit(nrt_module(sampling=Sampling(group_size=2, max_trace_tokens=4)), registers())
    assert looks == [2, 6]


def test_a_solved_task_has_only_right_answers(quiet_trainer):
    module = nrt_module(policy=taught_policy(), sampling=SAMPLING)
    assert validate(quiet_trainer, RewardCorrectness(rows=16), module)["right"] > 0.9


def rewards_seen(monkeypatch, module, **settings):
    """The rewards that a look compares, and the probe that it sees, while the module is fitted."""
    seen = []
    monkeypatch.setattr(f"{MODULE}.probe", lambda *args: seen.append(probe(*args)) or seen[-1])
    made = settings.pop("trainer")(callbacks=[RewardCorrectness(every_n_steps=1, rows=3)], max_steps=2,
                                   limit_val_batches=1, val_check_interval=2)  # fmt: skip
    made.fit(module, registers())
    return module.method.compute_rewards(seen[-1].batch), seen[-1]


SHORT = Sampling(group_size=4, max_trace_tokens=6, max_answer_tokens=6)


@pytest.mark.parametrize("train_response", [False, True])
def test_signals_of_sampled_answers_are_measured_at_a_look(quiet_trainer, monkeypatch, train_response):
    signals = WeightedSumOfSignals({"match": ExactMatch(), "format": Format(policy_answer=True)})
    module = nrt_module(sampling=SHORT, signals=signals, train_response=train_response)
    reward, _ = rewards_seen(monkeypatch, module, trainer=quiet_trainer)
    assert set(reward.signals) == {"match", "format"}


def test_the_baseline_is_that_of_the_scorer(quiet_trainer, monkeypatch):
    clipped = {"advantage": GroupNormalized(baseline="clip"), "optimizer": lambda p: torch.optim.SGD(p, lr=1.0)}
    module = nrt_module(sampling=SHORT, baseline_scorer=InitialBaseline(), **clipped)
    reward, seen = rewards_seen(monkeypatch, module, trainer=quiet_trainer)
    initial = Policy("embedded:registers-base").load()
    with initial.evaluating():
        logprobs = initial.score(seen.batch.rollouts, baseline=True).baseline_logprobs
    mask = seen.batch.rollouts.answer_mask
    expected = module.method.aggregator(logprobs, mask, logprobs).value[seen.batch.rollouts.group_ids]
    assert torch.allclose(reward.baseline, expected, atol=1e-5)
    assert not torch.allclose(seen.scores.baseline_logprobs, logprobs, atol=1e-3), "the policy has moved"


def test_penalties_of_length_and_kl_are_part_of_the_reward(quiet_trainer, monkeypatch):
    plain = nrt_module(sampling=SHORT)
    module = nrt_module(sampling=SHORT, overlong=PenalizeOverlong(penalty=5.0), kl_penalty=KLPenalty(coef=0.5),
                        reference=FrozenReference(), optimizer=lambda p: torch.optim.SGD(p, lr=1.0))  # fmt: skip
    reward, seen = rewards_seen(monkeypatch, module, trainer=quiet_trainer)
    rollouts, old = seen.batch.rollouts, seen.batch.rollouts.old_scores
    sampled = rollouts.segments.trace_mask | (rollouts.segments.marker_mask & rollouts.segments.marker_emitted[:, None])
    kl = (old.logprobs - old.ref_logprobs).where(sampled, 0).sum(dim=1)
    expected = plain.method.compute_rewards(seen.batch).value - 5 * rollouts.truncated.float() - 0.5 * kl
    assert rollouts.truncated.any()
    assert kl.abs().max() > 1e-3
    assert torch.allclose(reward.value, expected, atol=1e-5)


def test_modules_without_traces_are_refused(quiet_trainer):
    with pytest.raises(InputError, match=r"RewardCorrectness.*SFTModule\.method"):
        validate(quiet_trainer, RewardCorrectness(), SFTModule(nrt_module().policy))
    with pytest.raises(InputError, match="group_size to 2"):
        validate(quiet_trainer, RewardCorrectness(sampling=Sampling(group_size=1)))
    with pytest.raises(InputError, match=r"RewardCorrectness\.rows=0"):
        RewardCorrectness(rows=0)
