"""Questions that are left over from a replacement come first in the next one, and checkpoints hold them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from short_runs import nrt_module, registers
from tiny import ANSWERS, QUESTIONS, make_prompts

from nrt_lightning import OnPolicyRollout, Sampling, ZeroVarianceFilter
from nrt_lightning.callbacks.surplus import Surplus, joined
from nrt_lightning.filters import GroupFilter
from nrt_lightning.rollouts.joining import singles


def asked(questions) -> list[str]:
    return [row.question for one in questions for row in one.rows]


def test_kept_questions_come_first_and_survive_a_checkpoint(policy):
    groups = singles([make_prompts(policy, QUESTIONS, ANSWERS)])
    groups = [dataclasses.replace(group, counted=torch.tensor([True])) for group in groups]
    surplus = Surplus()
    surplus.begin(0, 2)
    surplus.keep(groups)
    surplus.begin(2, 4)
    again = Surplus()
    again.load_state_dict(surplus.state_dict())
    assert asked(surplus.take(2)) == QUESTIONS[:2]
    assert asked(surplus.questions) == QUESTIONS[2:]
    again.begin(2, 4)  # resumed inside the window: as it was when the window began
    assert again.questions[0].counted.tolist() == [True]
    assert asked(again.take(5)) == QUESTIONS
    fresh = dataclasses.replace(make_prompts(policy, ["a1b+1c+1d+1?dc:"], ["d4,c3"]), counted=torch.tensor([True]))
    batch = joined(surplus.take(1), fresh)
    assert asked([batch]) == [QUESTIONS[2], "a1b+1c+1d+1?dc:"]
    assert batch.prompt_ids.shape[0] == 2
    texts = [policy.tokenizer.decode(ids[m][1:]) for ids, m in zip(batch.prompt_ids, batch.prompt_mask, strict=True)]
    assert texts == asked([batch])


class EveryOther(GroupFilter):
    """Drops the first group of each window, and keeps all replacements."""

    needs_answer_logprobs = False

    def __init__(self, rule: Callable) -> None:
        self.rule = rule

    def measure(self, groups):
        return torch.zeros(len(set(groups.group_ids.tolist())))

    def keep(self, values):
        return self.rule(values)


def test_a_run_samples_what_was_left_over_first(quiet_trainer):
    windows, callback = [], OnPolicyRollout(progress=False)

    def rule(values):  # of the window two of three are dropped, then all replacements kept but in excess
        windows.append(len(values))
        return torch.ones_like(values).bool() if len(values) < 3 else torch.tensor([True, False, False])

    module = nrt_module(
        filters=[EveryOther(rule)],
        sampling=Sampling(group_size=2, max_trace_tokens=4, refill_rounds=2, keep_surplus=True),
    )
    callback.surplus_seen = []
    more = OnPolicyRollout.more_rows

    def spied(self, trainer, method, position, like, count, number, *, steps):
        before = asked(self.surplus.questions)
        found = more(self, trainer, method, position, like, count, number, steps=steps)
        callback.surplus_seen.append((before, asked(found)))
        return found

    callback.more_rows = spied.__get__(callback)
    question = make_prompts(module.policy, QUESTIONS[:1], ANSWERS[:1])
    kept = [dataclasses.replace(question, counted=torch.tensor([True]))]
    trainer = quiet_trainer(max_steps=2, callbacks=[callback])
    setup = callback.setup

    def with_surplus(*args, **kwargs):
        setup(*args, **kwargs)
        callback.surplus.questions = list(kept)

    callback.setup = with_surplus
    trainer.fit(module, registers(val=None))
    before, sampled = callback.surplus_seen[0]
    assert before == QUESTIONS[:1]
    assert sampled[0] == QUESTIONS[0]
    assert len(sampled) == 2
    assert callback.surplus_seen[1][0] == []


def test_zero_variance_groups_leave_no_surplus_without_the_setting(quiet_trainer):
    callback = OnPolicyRollout(progress=False)
    module = nrt_module(
        filters=[ZeroVarianceFilter()], sampling=Sampling(group_size=2, max_trace_tokens=4, refill_rounds=1)
    )
    quiet_trainer(max_steps=1, callbacks=[callback]).fit(module, registers(val=None))
    assert callback.surplus.questions == []
