import math

import pytest
import torch
from short_runs import Recorder, fast, registers
from tiny import ANSWERS, QUESTIONS, make_prompts

from nrt_lightning import LinearSchedule, Policy, RegisterPrograms, SFTModule


def sft(**settings):
    defaults = {"policy": Policy("embedded:registers-base"), "optimizer": fast, "schedule": LinearSchedule(0)}
    return SFTModule(**defaults | settings)


def test_loss_is_the_cross_entropy_of_the_answers(policy):
    module, prompts = sft(policy=policy), make_prompts(policy, QUESTIONS, ANSWERS)
    module.log = lambda *args, **kwargs: None
    loss = module.training_step(prompts, 0)
    total, count = 0.0, 0
    for i in range(3):
        ids = prompts.prompt_ids[i][prompts.prompt_mask[i]]
        answer = prompts.answer_ids[i][prompts.answer_mask[i]]
        logits = policy.network(torch.cat([ids, answer])[None]).logits[0, len(ids) - 1 : -1]
        total = total + torch.nn.functional.cross_entropy(logits, answer, reduction="sum")
        count += len(answer)
    torch.testing.assert_close(loss, total / count)


@pytest.mark.parametrize("window", [1, 2])
def test_it_learns_the_rows_it_sees(trainer, window):
    data = registers(train=RegisterPrograms("train", 6), batch_size=3, passes=60, window=window)
    recorder = Recorder()
    recorder.on_train_batch_end = lambda trainer, *_: recorder.rows.append(
        float(trainer.callback_metrics["train/loss"])
    )
    trainer(callbacks=[recorder], max_steps=60, limit_val_batches=0).fit(sft(), data)
    assert recorder.rows[-1] < 0.3 * recorder.rows[0]


def test_evaluation_and_prediction(policy, trainer):
    module = sft(policy=policy)
    texts = module.evaluate(make_prompts(policy, QUESTIONS, ANSWERS)).texts
    assert [(text.question, text.answer, text.trace) for text in texts] == [
        (q, a, "") for q, a in zip(QUESTIONS, ANSWERS)
    ]
    values = module.metrics.compute()
    assert values["exact_match"] == sum(text.policy_answer == text.answer for text in texts) / 3
    assert set(values) == {"exact_match", "exact_match_forced", "confidence"}
    assert 0 < values["confidence"] < 1
    rows = [row for batch in trainer().predict(module, registers(predict=RegisterPrograms("test", 4))) for row in batch]
    assert len(rows) == 4
    assert all(row["trace"] is None and row["marker_emitted"] is None for row in rows), "there was no trace"


def test_exact_match_counts_right_answers(trainer):
    data = registers(train=RegisterPrograms("train", 4), val=RegisterPrograms("train", 4), batch_size=4, passes=150)
    module, made = sft(), trainer(max_steps=150, limit_val_batches=0)
    made.fit(module, data)
    (values,) = trainer().validate(module, data, verbose=False)
    assert values["val/exact_match"] == 1.0
    assert math.isclose(values["val/confidence"], 1.0, abs_tol=0.2)
