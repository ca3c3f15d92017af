"""Evaluation on a second data set during training."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from typing_extensions import override

from nrt_lightning.callbacks.looks import LookingCallback, Looks
from nrt_lightning.data.arguments import Source
from nrt_lightning.data.encoding import EncodedRows, PromptEncoder
from nrt_lightning.data.formats import RowFormat
from nrt_lightning.data.splits import Splits, as_source
from nrt_lightning.data.templates import PromptTemplate
from nrt_lightning.errors import InputError
from nrt_lightning.evaluation.answered import AnsweredQuestion
from nrt_lightning.evaluation.questions import AnswerSettings, Metrics, Questionnaire, check_references, distinct, named
from nrt_lightning.evaluation.summary import powers_of_two, summarize
from nrt_lightning.export.prompts import templates_of
from nrt_lightning.export.record import limits_of
from nrt_lightning.functional.validation import check_at_least
from nrt_lightning.strategies import gather_in_order

UNLIMITED = 10**9  # tokens
OF_TRACES = ("marker_rate", "trace_tokens")


class BenchmarkEvaluation(LookingCallback):
    """Lets the policy answer the questions of a second data set, in validation, and logs the figures under `name/`.

    The figures are those of `nrt-lightning evaluate`: every metric, `NAME_majority@K` and `NAME_pass@K` for several
    answers, `marker_rate`, `trace_tokens` and confidences. Random draws follow from `answers.seed` and the questions,
    so training and its exact resume are the same with and without it.

    Args:
        name: before the names of the figures, such as `gsm8k`.
        questions: a file, a directory or a hub name, whose split `test` is read, or a source; in Python also a list of
            dicts.
        every_n_steps: optimizer steps between two evaluations at least; each is part of a validation.
        metrics: classes of metrics, or a mapping of names to them; null for `ExactMatch`.
        answers: how many answers are written, and how; null for one greedy answer.
        format: columns of question and answer; null for `QuestionAnswer()`.
        template: makes the prompts; null for that of the training rows.
        max_rows: use only the first rows; null for all.
        batch_size: questions at a time in each process.

    Raises:
        InputError: a row lacks what a metric needs, or a setting is out of range.

    Example:
        >>> callback = BenchmarkEvaluation("sums", [{"question": "1 + 1?", "answer": "2"}], every_n_steps=50)
        >>> callback.max_rows
        256
    """

    def __init__(
        self,
        name: str,
        questions: Source,
        every_n_steps: int = 1,
        metrics: Metrics = None,
        answers: AnswerSettings | None = None,
        format: RowFormat | None = None,
        template: PromptTemplate | None = None,
        max_rows: int | None = 256,
        batch_size: int = 16,
    ) -> None:
        if not name or "/" in name or name in ("train", "val", "test"):
            raise InputError(f"BenchmarkEvaluation.name={name!r} cannot be used. Give a name of its own, without '/'.")
        for setting, value in (("max_rows", max_rows), ("batch_size", batch_size)):
            if value is not None:
                check_at_least(f"BenchmarkEvaluation.{setting}", value, 1)
        self.looks = Looks(type(self).__name__, every_n_steps)
        self.name, self.batch_size, self.max_rows = name, batch_size, max_rows
        self.source, self.format, self.template = as_source(questions, "test"), format, template
        self.metrics, self.answers = named(metrics), answers or AnswerSettings()
        self.encoded: EncodedRows | None = None

    def logged_names(self, pl_module: Any) -> list[str]:
        """Names of the figures that are logged of a module, for callbacks that monitor one."""
        traces, scored = hasattr(pl_module, "method"), self.answers.confidence
        figures = ["ended_answers", *(OF_TRACES if traces else ()), *(["confidence"] if scored else [])]
        figures += ["confidence_without_trace"] if traces and scored else []
        more = [f"majority@{self.answers.samples}", *(f"pass@{k}" for k in powers_of_two(self.answers.samples))]
        endings = ["", "_stderr", *(f"_{name}" for name in more if self.answers.samples > 1)]
        names = [name + ending for name in self.metrics for ending in endings]
        return [f"{self.name}/{name}" for name in (*names, *figures)]

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(name=self.name)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read and encode the questions, before any weights are read."""
        super().setup(trainer, pl_module, stage)
        if stage not in ("fit", "validate"):
            return
        none: dict[str, Any] = dict.fromkeys(("train", "val", "predict"))
        rows = Splits({**none, "test": self.source}, self.format, {"test": self.max_rows}, {}).rows("test")
        check_references(rows, self.metrics, confidence=self.answers.confidence)
        policy: Any = pl_module.policy
        template = self.template.with_markup(policy.markup) if self.template else template_of(trainer, pl_module)
        encoder = PromptEncoder(policy.tokenizer, template, UNLIMITED, UNLIMITED)
        self.encoded = encoder.encode(distinct(rows), f"BenchmarkEvaluation {self.name}")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate and log, if it is due."""
        if self.encoded is None or not self.looks.begin(trainer):
            return
        with trainer.precision_plugin.forward_context():
            answered = self.answered(trainer, pl_module, self.encoded)
        figures = summarize(answered, self.metrics)
        values = {name: value for name, value in figures.items() if isinstance(value, float)}
        for name, found in figures["metrics"].items():
            values |= {name if key == "mean" else f"{name}_{key}": found[key] for key in found if key != "failed"}
        known = {f"{self.name}/{name}": value for name, value in values.items() if value is not None}
        pl_module.log_dict(known, sync_dist=trainer.world_size > 1)  # equal on all processes already

    def answered(self, trainer: Trainer, pl_module: Any, encoded: EncodedRows) -> list[AnsweredQuestion]:
        """The answers to all questions, in their order, on every process."""
        asked = Questionnaire(
            pl_module.policy,
            pl_module.engine,
            self.answers.sampling(limits_of(pl_module)),
            self.metrics,
            self.answers.seed,
            confidence=self.answers.confidence,
            writes_traces=hasattr(pl_module, "method"),
        )
        rank, ranks, total = trainer.global_rank, trainer.world_size, len(encoded)
        # Processes ask equally many times, also where some have no more questions: sharded weights are read together.
        mine = [min(index, total - 1) for index in range(rank, -(-total // ranks) * ranks, ranks)]
        found: list[AnsweredQuestion] = []
        for start in range(0, len(mine), self.batch_size):
            batch = encoded.collate([encoded[index] for index in mine[start : start + self.batch_size]])
            found += asked.answer(batch.to(pl_module.device))
        return gather_in_order(found)[:total]


def template_of(trainer: Trainer, pl_module: Any) -> PromptTemplate:
    """The template of the training rows, with the policy's marker.

    Raises:
        InputError: there is none.
    """
    own_batches = vars(pl_module).get("text_encoder")
    for template in templates_of(getattr(trainer, "datamodule", None), own_batches, pl_module):
        return template.with_markup(pl_module.policy.markup)
    raise InputError("BenchmarkEvaluation: the training rows have no template. Set `template`.")
