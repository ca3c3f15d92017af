"""Metrics of an evaluation: the built-in ones and the user's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric

from nrt_lightning.errors import InputError
from nrt_lightning.evaluation.evaluate import Evaluation
from nrt_lightning.metrics import ReasoningMetrics
from nrt_lightning.signals import TextSignal
from nrt_lightning.signals.failures import guarded
from nrt_lightning.strategies import gather_objects
from nrt_lightning.structures import Prompts

BUILT_IN = {*ReasoningMetrics.names, "relative_confidence_gain"}


class MetricOfTexts(Protocol):
    """A `torchmetrics.Metric` of texts. With `Metric` here, the command line's help would list all of torchmetrics."""

    def update(self, preds: Any, target: Any, /) -> Any:
        """Add answers and reference answers, two lists of texts."""

    def compute(self) -> Any:
        """A number, or numbers by name."""


TextMetric = MetricOfTexts | TextSignal


class EvaluationMetrics:
    """The built-in metrics and the user's metrics and signals, over batches and processes.

    A metric's `update` is called once, with the answers of the policy and the reference answers of all processes, two
    lists of texts. A signal reads the rollouts as text; its value is the mean over rows. This is not a submodule, so
    checkpoints, sharding and optimizers do not see the states and models of metrics.

    Args:
        metrics: the user's metrics and signals. Those of a list are named by their classes, and a metric that returns
            several values by their keys, as in torchmetrics' `MetricCollection`. Those of a mapping are named by it,
            `NAME` or `NAME_KEY`.

    Raises:
        InputError: two metrics have the same name, or a metric does not take texts.

    Example:
        >>> from torchmetrics.text import CharErrorRate, ROUGEScore
        >>> EvaluationMetrics([CharErrorRate()]).names, EvaluationMetrics({"cer": CharErrorRate()}).names
        (['CharErrorRate'], ['cer'])
        >>> EvaluationMetrics([ROUGEScore(rouge_keys="rougeL")]).names
        ['rougeL_fmeasure', 'rougeL_precision', 'rougeL_recall']
    """

    def __init__(self, metrics: Sequence[TextMetric] | Mapping[str, TextMetric] | None = None) -> None:
        self.named = isinstance(metrics, Mapping)
        pairs = metrics.items() if isinstance(metrics, Mapping) else [(type(m).__name__, m) for m in metrics or []]
        self.built_in = ReasoningMetrics()
        self.metrics: list[tuple[str, Metric]] = []
        self.pairs: list[tuple[str, str]] = []  # answers of the policy and reference answers, of this process
        self.signals: list[tuple[str, TextSignal, MeanMetric]] = []
        self.names: list[str] = []
        for name, metric in pairs:
            if isinstance(metric, TextSignal):
                self.signals.append((name, metric, MeanMetric(nan_strategy="ignore")))
                names = [name]
            elif isinstance(metric, Metric):
                self.metrics.append((name, metric))
                names = self.names_of(name, metric)
            else:
                found = type(metric).__name__
                raise InputError(f"metrics.{name} is a {found}: give a torchmetrics Metric or a TextSignal.")
            if taken := sorted({*names} & {*self.names, *BUILT_IN}):
                raise InputError(f"metrics: the name {taken[0]!r} is taken. Name them by a mapping: {{my_name: ...}}.")
            self.names += names

    def names_of(self, name: str, metric: Metric) -> list[str]:
        """The names of a metric's values, found by comparing two texts.

        Raises:
            InputError: the metric does not take texts.
        """
        # Texts are gathered instead of states: gathering lists of uneven lengths, such as ROUGEScore's, deadlocks.
        metric.sync_on_compute = False
        try:
            return list(self.computed(name, metric, ["a text"], ["a text"]))
        except Exception as error:
            raise InputError(
                f"metrics.{name}: {type(metric).__name__} does not compare texts ({error!r}). Give a metric whose "
                "update takes preds and target as lists of texts, and whose compute returns one or more numbers."
            ) from error

    def computed(self, name: str, metric: Metric, answers: list[str], references: list[str]) -> dict[str, Tensor]:
        """The values of a metric, by the names that are logged."""
        metric.reset()
        metric.update(answers, references)
        found = metric.compute()
        if not isinstance(found, Mapping):
            found = {name: found}
        elif self.named:
            found = {f"{name}_{key}": value for key, value in found.items()}
        return {key: torch.as_tensor(value).reshape(()) for key, value in found.items()}

    def start(self, device: torch.device) -> None:
        """Move the metrics to a device and reset them."""
        self.pairs.clear()
        for metric in [self.built_in, *(metric for _, metric in self.metrics), *(mean for *_, mean in self.signals)]:
            metric.to(device).reset()

    def update(self, prompts: Prompts, found: Evaluation) -> None:
        """Add the counted questions of an evaluation."""
        found.add_to(self.built_in, prompts)
        counted = [True] * len(prompts) if prompts.counted is None else prompts.counted.tolist()
        texts = [text for text, counts in zip(found.texts, counted, strict=True) if counts]
        self.pairs += [(text.policy_answer, text.answer) for text in texts]
        like = torch.zeros(len(texts), device=prompts.prompt_ids.device)
        for name, signal, mean in self.signals if texts else []:
            read, question = partial(signal.read_all, texts), lambda n: repr(texts[n].row.id)
            mean.update(guarded(name, read, like, question, "leave_out"))

    def compute(self) -> dict[str, Tensor]:
        """All values by name, of all processes together."""
        values = self.built_in.compute()
        pairs = [pair for part in gather_objects(self.pairs) for pair in part] if self.metrics else []
        if pairs:
            answers, references = (list(texts) for texts in zip(*pairs, strict=True))
            for name, metric in self.metrics:
                values |= self.computed(name, metric, answers, references)
        return values | {name: mean.compute() for name, _, mean in self.signals}
