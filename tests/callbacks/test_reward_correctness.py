import pytest
import torch
from short_runs import nrt_module, registers
from taught import taught_policy

from nrt_lightning import GeometricMean, InputError, RegisterPrograms, RewardCorrectness, Sampling, SFTModule
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


def test_modules_without_traces_are_refused(quiet_trainer):
    with pytest.raises(InputError, match=r"RewardCorrectness.*SFTModule\.method"):
        validate(quiet_trainer, RewardCorrectness(), SFTModule(nrt_module().policy))
    with pytest.raises(InputError, match="group_size to 2"):
        validate(quiet_trainer, RewardCorrectness(sampling=Sampling(group_size=1)))
    with pytest.raises(InputError, match="rows is 0"):
        RewardCorrectness(rows=0)
