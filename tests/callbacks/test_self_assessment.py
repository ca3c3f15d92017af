import csv
import json

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from short_runs import nrt_module, registers
from taught import taught_policy
from tiny import ANSWERS, QUESTIONS, make_prompts

from nrt_lightning import InputError, RegisterPrograms, Sampling, SelfAssessment, SFTModule
from nrt_lightning.evaluation.self_assessment import assess
from nrt_lightning.metrics.self_assessment import self_assessment
from nrt_lightning.models import Policy
from nrt_lightning.rollouts import TransformersEngine
from nrt_lightning.rollouts.answering import answer_limits

SAMPLING = Sampling(group_size=4, max_trace_tokens=24, suppress_eos=True)
NAMES = {"agreement", "confidence", "right", "calibration_error", "calibration_error_confidence", "right_surest_half"}


def test_the_figures_are_those_of_their_definitions():
    agreement, right = torch.tensor([1.0, 1.0, 0.55, 0.25]), torch.tensor([True, False, True, False])
    confidence = torch.tensor([0.91, 0.72, 0.33, 0.04])
    found = {name: float(value) for name, value in self_assessment(agreement, confidence, right).items()}
    assert found["calibration_error"] == pytest.approx((2 * abs(1 - 0.5) + abs(0.55 - 1) + 0.25) / 4)
    assert found["calibration_error_confidence"] == pytest.approx((0.09 + 0.72 + 0.67 + 0.04) / 4)
    assert found["right_surest_half"] == 0.5
    assert found["right"] == 0.5


def look(trainer, callback, module, rows=6, **settings):
    made = trainer(callbacks=[callback], limit_val_batches=1.0, **settings)
    made.validate(module, registers(val=RegisterPrograms("validation", rows), eval_batch_size=4), verbose=False)
    prefix = "self_assessment/"
    values = {k.removeprefix(prefix): float(v) for k, v in made.callback_metrics.items() if k.startswith(prefix)}
    return values, callback.file(made).read()


def test_rows_are_logged_and_written(quiet_trainer, tmp_path):
    module = nrt_module(sampling=SAMPLING)
    values, [line] = look(quiet_trainer, SelfAssessment(rows=5), module, default_root_dir=tmp_path)
    assert set(values) == NAMES
    assert len(line["rows"]) == 5
    assert json.loads((tmp_path / "self_assessment.jsonl").read_text()) == line
    columns = [
        torch.tensor([float(row[name]) for row in line["rows"]]) for name in ("agreement", "confidence", "right")
    ]
    expected = self_assessment(columns[0], columns[1], columns[2] > 0.5)
    assert values == pytest.approx({name: float(value) for name, value in expected.items()}, abs=1e-5)
    assert {row["agreement"] * 4 % 1 for row in line["rows"]} == {0.0}


def test_a_policy_that_solves_the_task_is_sure_and_right(quiet_trainer, tmp_path):
    module = nrt_module(policy=taught_policy(), sampling=Sampling(group_size=4, max_trace_tokens=32, suppress_eos=True))
    values, _ = look(quiet_trainer, SelfAssessment(), module, default_root_dir=tmp_path)
    assert values["right"] > 0.8
    assert values["agreement"] > 0.8


def test_confidence_is_the_probability_of_the_sampled_answers():
    policy = Policy("embedded:registers-base").load()
    prompts = make_prompts(policy, QUESTIONS, ANSWERS)
    asked = []

    class Watched(TransformersEngine):
        def generate(self, policy, request, *args):
            asked.append((request, super().generate(policy, request, *args)))
            return asked[-1][1]

    method = nrt_module(policy=policy, engine=Watched(), sampling=SAMPLING).method
    found = assess(method, prompts, SAMPLING, seed=1)
    request, answers = asked[-1]
    ids = torch.cat([request.prompt_ids, answers.token_ids], dim=1)
    mask = torch.cat([request.prompt_mask, answers.token_mask], dim=1)
    with torch.no_grad(), policy.evaluating():
        logits = policy.model(input_ids=ids, attention_mask=mask.long()).logits.log_softmax(-1)
    width = answers.token_ids.shape[1]
    chosen = logits[:, -width - 1 : -1].gather(2, answers.token_ids.unsqueeze(2)).squeeze(2)
    limits = answer_limits(prompts).repeat_interleave(4)
    kept = answers.token_mask & (torch.arange(width) < limits.unsqueeze(1))
    expected = chosen.where(kept, 0).sum(dim=1).exp().view(3, 4).mean(dim=1)
    assert found.confidence.tolist() == pytest.approx(expected.tolist(), abs=1e-4)


def test_looks_are_as_far_apart_as_asked_and_a_new_run_sets_old_ones_aside(quiet_trainer, tmp_path):
    settings = {"max_steps": 6, "limit_val_batches": 1, "val_check_interval": 2, "default_root_dir": tmp_path}
    for _ in range(2):
        callback = SelfAssessment(every_n_steps=3, rows=2)
        made = quiet_trainer(callbacks=[callback], **settings)
        made.fit(nrt_module(sampling=Sampling(group_size=2, max_trace_tokens=4)), registers())
        assert [line["step"] for line in callback.file(made).read()] == [2, 6]
    assert (tmp_path / "self_assessment-1.jsonl").exists()


def test_a_resumed_run_has_the_looks_of_the_uninterrupted_one(quiet_trainer, tmp_path):
    def fit(name, ckpt_path=None):
        saves = ModelCheckpoint(tmp_path, every_n_train_steps=2, save_top_k=-1, filename="{step}")
        callback = SelfAssessment(every_n_steps=3, rows=2)
        made = quiet_trainer(
            logger=CSVLogger(tmp_path, "", name), max_epochs=1, max_steps=-1, limit_train_batches=6,
            limit_val_batches=1, enable_checkpointing=True, callbacks=[saves, callback],
            check_val_every_n_epoch=None, val_check_interval=2,
        )  # fmt: skip
        module = nrt_module(sampling=Sampling(group_size=2, max_trace_tokens=4))
        made.fit(module, registers(), ckpt_path=ckpt_path)
        return callback.file(made).read()

    whole = fit("a")
    assert [line["step"] for line in whole] == [2, 6]
    assert fit("b", tmp_path / "step=4.ckpt") == whole


def test_a_look_at_a_checkpoint_has_its_steps(quiet_trainer, tmp_path):
    sampling = Sampling(group_size=2, max_trace_tokens=4)
    saves = ModelCheckpoint(tmp_path, every_n_train_steps=2, filename="{step}")
    made = quiet_trainer(max_steps=2, enable_checkpointing=True, callbacks=[saves, SelfAssessment(rows=2)])
    made.fit(nrt_module(sampling=sampling), registers())
    callback, logger = SelfAssessment(rows=2), CSVLogger(tmp_path, "", "look")
    looking = quiet_trainer(logger=logger, callbacks=[callback], limit_val_batches=1)
    looking.validate(nrt_module(sampling=sampling), registers(), ckpt_path=tmp_path / "step=2.ckpt", verbose=False)
    assert [line["step"] for line in callback.file(looking).read()] == [2]
    [line] = map(json.loads, (tmp_path / "look" / "metrics.jsonl").read_text().splitlines())
    assert [line[name] for name in ("step", "prompts", "rollouts")] == [2, 6, 12]
    [row] = csv.DictReader((tmp_path / "look" / "metrics.csv").read_text().splitlines())
    assert row["step"] == "2"


@pytest.mark.parametrize("sampling", [Sampling(group_size=1), Sampling(group_size=4, temperature=0)])
def test_samples_that_cannot_differ_are_refused(quiet_trainer, sampling):
    with pytest.raises(InputError, match=r"SelfAssessment.*group_size.*temperature"):
        look(quiet_trainer, SelfAssessment(sampling=sampling), nrt_module())


def test_a_module_without_traces_is_refused(quiet_trainer):
    with pytest.raises(InputError, match="SelfAssessment"):
        look(quiet_trainer, SelfAssessment(), SFTModule(Policy("embedded:registers-base")))
