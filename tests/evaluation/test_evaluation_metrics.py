"""The user's metrics and signals in evaluation."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from short_runs import fast, nrt_module, registers
from tiny import ANSWERS, QUESTIONS, make_prompts
from torchmetrics import Accuracy, Metric
from torchmetrics.text import CHRFScore, EditDistance, Perplexity, ROUGEScore

from nrt_lightning import (
    ExactMatch,
    Format,
    FunctionSignal,
    InputError,
    Policy,
    RolloutText,
    Sampling,
    SFTModule,
)
from nrt_lightning.evaluation import EvaluationMetrics


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy("embedded:registers-base").load()


def sft_module(**settings) -> SFTModule:
    return SFTModule(**{"policy": Policy("embedded:registers-base"), "optimizer": fast} | settings)


def answer_length(text: RolloutText) -> float:
    return float(len(text.policy_answer))


def fails_for_d(text: RolloutText) -> float:
    return 1 / (not text.answer.startswith("d"))


def length() -> FunctionSignal:
    return FunctionSignal("evaluation.test_evaluation_metrics.answer_length")


class Pairs(Metric):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[tuple[str, str]] = []

    def update(self, preds: list[str], target: list[str]) -> None:
        self.pairs = list(zip(preds, target, strict=True))

    def compute(self) -> torch.Tensor:
        return torch.tensor(float(len(self.pairs)))


@pytest.mark.parametrize("make", [nrt_module, sft_module])
def test_metrics_get_the_counted_answers_and_signals_the_texts(make, policy: Policy) -> None:
    pairs = Pairs()
    module = make(policy=policy, metrics=[pairs, ExactMatch(forced=True), length()])
    prompts = make_prompts(policy, QUESTIONS, ANSWERS)
    prompts.counted = torch.tensor([True, False, True])
    texts = module.evaluate(prompts).texts
    values = module.metrics.compute()
    assert pairs.pairs == [(texts[n].policy_answer, ANSWERS[n]) for n in (0, 2)]
    assert values["Pairs"] == 2
    assert values["ExactMatch"] == values["exact_match_forced"]
    assert values["FunctionSignal"] == sum(len(texts[n].policy_answer) for n in (0, 2)) / 2


@pytest.mark.parametrize("make", [nrt_module, sft_module])
def test_a_run_logs_them_beside_the_others(make, trainer) -> None:
    module = make(metrics=[ROUGEScore(rouge_keys="rougeL"), EditDistance(), ExactMatch()])
    run = trainer(max_steps=1, val_check_interval=1, limit_val_batches=1.0)
    run.fit(module, registers())
    names = {"rougeL_fmeasure", "rougeL_precision", "rougeL_recall", "EditDistance", "ExactMatch"}
    assert {f"val/{name}" for name in names} <= run.callback_metrics.keys()
    first, second = (trainer().test(module, registers(), verbose=False)[0] for _ in range(2))
    assert first == second, "a new evaluation starts with empty states"
    assert first["test/ExactMatch"] == first["test/exact_match"]
    assert {f"test/{name}" for name in names} <= first.keys()


def test_outputs_of_a_step_hold_the_texts(policy: Policy) -> None:
    prompts = make_prompts(policy, QUESTIONS, ANSWERS)
    found, direct = (m.validation_step(prompts, 0) for m in (nrt_module(policy=policy), sft_module(policy=policy)))
    assert [text.answer for text in found["texts"]] == [text.answer for text in direct["texts"]] == ANSWERS
    assert found["baseline_logprobs"].shape == prompts.answer_ids.shape
    assert "baseline_logprobs" not in direct


@pytest.mark.parametrize("make", [nrt_module, sft_module])
def test_answers_are_written_whole_for_metrics_and_outcomes_stay(make, policy: Policy) -> None:
    """What metrics read does not depend on the length of the batch's longest reference answer."""
    limit = {"sampling": Sampling(max_trace_tokens=12, max_answer_tokens=40)} if make is nrt_module else {
        "max_answer_tokens": 40
    }  # fmt: skip
    prompts = make_prompts(policy, QUESTIONS, ["d"] * 3)
    plain = make(policy=policy, **limit)
    module = make(policy=policy, **limit, metrics=[length()])
    cut, whole = plain.evaluate(prompts), module.evaluate(prompts)
    assert all(len(text.policy_answer) <= 4 for text in cut.texts)  # one character a token: d, the end, and 2 more
    assert any(len(text.policy_answer) > 4 for text in whole.texts)
    for text, longer in zip(cut.texts, whole.texts):
        assert longer.policy_answer.startswith(text.policy_answer)
        assert longer.trace == text.trace
    values = module.metrics.compute()
    assert {name: values[name] for name in plain.metrics.compute()} == plain.metrics.compute()


def test_a_signal_that_fails_leaves_rows_out_with_a_warning(policy: Policy, caplog: pytest.LogCaptureFixture) -> None:
    signal = FunctionSignal("evaluation.test_evaluation_metrics.fails_for_d")
    module = nrt_module(policy=policy, metrics={"judge": signal})
    with caplog.at_level(logging.WARNING):
        module.evaluate(make_prompts(policy, QUESTIONS, ANSWERS))
    assert module.metrics.compute()["judge"] == 1
    (record,) = [record for record in caplog.records if "'judge'" in record.message]
    assert "2 of 3" in record.message
    assert "ZeroDivisionError" in record.message


def test_a_mapping_names_metrics() -> None:
    metrics = EvaluationMetrics(
        {"r": ROUGEScore(rouge_keys="rouge1"), "a": CHRFScore(), "b": CHRFScore(n_word_order=0)}
    )
    assert metrics.names == ["r_rouge1_fmeasure", "r_rouge1_precision", "r_rouge1_recall", "a", "b"]


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ([CHRFScore(), CHRFScore()], "'CHRFScore'"),
        ([ROUGEScore(rouge_keys="rougeL"), ROUGEScore(rouge_keys="rougeL")], "'rougeL_fmeasure'"),
        ({"exact_match": ExactMatch()}, "'exact_match'"),
        ({"relative_confidence_gain": CHRFScore()}, "'relative_confidence_gain'"),
        ([Perplexity()], r"metrics\.Perplexity"),
        ([Accuracy(task="binary")], r"metrics\.BinaryAccuracy"),
        ([CHRFScore(return_sentence_level_score=True)], r"metrics\.CHRFScore"),
        ([Format()], r"metrics\.Format"),
        ([len], r"metrics\.builtin_function_or_method"),
    ],
)
def test_what_cannot_be_logged_is_refused_before_weights_are_read(metrics, message: str) -> None:
    with pytest.raises(InputError, match=message):
        nrt_module(metrics=metrics)


class WithModel(Metric):
    """Like `BERTScore`, it holds a model, and its state is stored."""

    def __init__(self) -> None:
        super().__init__()
        self.model = torch.nn.Linear(2, 2)
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum", persistent=True)

    def update(self, preds: list[str], target: list[str]) -> None:
        self.total += len(preds)

    def compute(self) -> torch.Tensor:
        return self.total


def test_checkpoints_do_not_depend_on_metrics(trainer, tmp_path: Path) -> None:
    with_metrics, without, path = [WithModel(), ROUGEScore(rouge_keys="rougeL")], None, tmp_path / "a.ckpt"
    for first, second in ((with_metrics, without), (without, with_metrics)):
        run = trainer(max_steps=1, limit_val_batches=1)
        run.fit(nrt_module(metrics=first), registers())
        run.save_checkpoint(path)
        assert all(name.startswith("policy.") for name in torch.load(path, weights_only=False)["state_dict"])
        resumed = trainer(max_steps=2, limit_val_batches=1)
        resumed.fit(nrt_module(metrics=second), registers(), ckpt_path=path)
        assert resumed.global_step == 2
