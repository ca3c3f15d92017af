"""Evaluation on a second data set during training leaves training as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from nrt_lightning import (
    AnswerSettings,
    BenchmarkEvaluation,
    BestAndLast,
    ExactMatch,
    InputError,
    NRTModule,
    NumericMatch,
    PlainTemplate,
    Policy,
    QADataModule,
    RegisterPrograms,
    Sampling,
    SFTModule,
)

SUMS = [{"question": "a4b*2c+2d+3?dc:", "answer": "d3,c0"}, {"question": "b1c+1d*3?dc:", "answer": "d6,c2"}]


def module() -> NRTModule:
    sampling = Sampling(group_size=2, max_trace_tokens=6, max_answer_tokens=6)
    return NRTModule(Policy("embedded:registers-base"), sampling=sampling,
                     optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))  # fmt: skip


def sft_module() -> SFTModule:
    return SFTModule(Policy("embedded:registers-base"), max_answer_tokens=6)


def data() -> QADataModule:
    return QADataModule(
        train=RegisterPrograms("train", 16), val=RegisterPrograms("validation", 2), batch_size=2,
        template=PlainTemplate("{question}"),
    )  # fmt: skip


class Logged(L.Callback):
    """The figures of each validation."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, dict[str, float]]] = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        found = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("sums/")}
        self.seen.append((trainer.global_step, found))


def fitted(trainer: Any, *callbacks: L.Callback, **settings: Any) -> dict[str, torch.Tensor]:
    model = module()
    options = {"max_steps": 4, "val_check_interval": 1, "limit_val_batches": 1} | settings
    trainer(callbacks=list(callbacks), **options).fit(model, data())
    return {name: weight.clone() for name, weight in model.policy.state_dict().items()}


def test_figures_are_logged_every_n_steps_and_training_is_untouched(trainer: Any) -> None:
    alone = fitted(trainer)
    calls: list[int] = []

    class Counting(BenchmarkEvaluation):
        def answered(self, run: L.Trainer, *args: Any) -> Any:
            calls.append(run.global_step)
            return super().answered(run, *args)

    logged = Logged()
    settings = AnswerSettings(samples=2)
    beside = fitted(trainer, Counting("sums", SUMS, every_n_steps=2, answers=settings), logged)
    assert calls == [1, 3]
    assert all(torch.equal(alone[name], beside[name]) for name in alone)
    assert {"sums/exact_match", "sums/exact_match_majority@2", "sums/exact_match_pass@2", "sums/marker_rate",
            "sums/confidence"} <= logged.seen[0][1].keys()  # fmt: skip


def test_its_figures_may_be_monitored_and_no_others(trainer: Any, tmp_path: Path) -> None:
    def settings(monitor: str) -> dict[str, Any]:
        kept = BestAndLast(monitor=monitor, dirpath=str(tmp_path / "kept"))
        return {"callbacks": [BenchmarkEvaluation("sums", SUMS), kept], "enable_checkpointing": True}

    logged, short = Logged(), {"max_steps": 1, "val_check_interval": 1, "limit_val_batches": 1}
    known = settings("sums/exact_match")
    trainer(**short, **known | {"callbacks": [*known["callbacks"], logged]}).fit(module(), data())
    assert (tmp_path / "kept" / "best.ckpt").exists()
    with pytest.raises(InputError, match=r"sums/exact_mtch.*sums/exact_match"):
        trainer(**short, **settings("sums/exact_mtch")).fit(module(), data())


@pytest.mark.parametrize("confidence", [True, False])
@pytest.mark.parametrize("made", [module, sft_module])
def test_the_names_are_those_that_are_logged(trainer: Any, made: Any, confidence: bool) -> None:
    answers, model = AnswerSettings(samples=2, confidence=confidence), made()
    callback, logged = BenchmarkEvaluation("sums", SUMS, answers=answers), Logged()
    trainer(callbacks=[callback, logged], max_steps=1, val_check_interval=1, limit_val_batches=1).fit(model, data())
    assert sorted(callback.logged_names(model)) == sorted(logged.seen[0][1])


def test_the_step_of_the_last_evaluation_is_resumed(trainer: Any) -> None:
    callback = BenchmarkEvaluation("sums", SUMS, every_n_steps=3)
    fitted(trainer, callback, max_steps=1)
    again = BenchmarkEvaluation("sums", SUMS, every_n_steps=3)
    again.load_state_dict(callback.state_dict())
    assert again.looks.last == 1
    assert callback.state_key != BenchmarkEvaluation("others", SUMS).state_key, "two data sets"


def test_a_policy_without_traces_is_evaluated(trainer: Any) -> None:
    logged = Logged()
    callbacks = [BenchmarkEvaluation("sums", SUMS), logged]
    trainer(callbacks=callbacks, max_steps=1, limit_val_batches=1, val_check_interval=1).fit(sft_module(), data())
    assert 0 <= logged.seen[0][1]["sums/confidence"] <= 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "val"}, "name='val'"),
        ({"name": "a/b"}, "name='a/b'"),
        ({"every_n_steps": 0}, "every_n_steps=0"),
        ({"questions": "missing.csv"}, r"missing\.csv"),
        ({"metrics": [NumericMatch()], "questions": [{"question": "?", "answer": "blue"}]}, "a number.*'blue'"),
        ({"metrics": [ExactMatch(), ExactMatch(forced=True)]}, "exact_match"),
        ({"questions": [{"question": "?", "answer": None}]}, "answer"),
    ],
)
def test_what_cannot_be_used_is_named_before_training(trainer: Any, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        fitted(trainer, BenchmarkEvaluation(**{"name": "sums", "questions": SUMS} | settings))


def test_it_is_configured_by_yaml(tmp_path: Path) -> None:
    from jsonargparse import ArgumentParser

    (tmp_path / "q.csv").write_text("question,answer\n1+1,2\n")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(BenchmarkEvaluation, "callback")
    settings = {"name": "sums", "questions": str(tmp_path / "q.csv"), "answers": {"samples": 4},
                "metrics": ["nrt_lightning.NumericMatch"]}  # fmt: skip
    given = parser.parse_object(
        {"callback": {"class_path": "nrt_lightning.BenchmarkEvaluation", "init_args": settings}}
    )
    callback = parser.instantiate(given).callback
    assert callback.answers.samples == 4
    assert list(callback.metrics) == ["numeric_match"]
