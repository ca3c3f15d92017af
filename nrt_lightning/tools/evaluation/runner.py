"""Evaluation of a policy on rows, batch by batch, into files that a killed evaluation continues."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nrt_lightning.data.encoding import EncodedRows, PromptEncoder
from nrt_lightning.errors import InputError
from nrt_lightning.evaluation.questions import AnswerSettings, Questionnaire, check_references, distinct
from nrt_lightning.evaluation.summary import summarize
from nrt_lightning.models.policy.digests import weights_digest
from nrt_lightning.models.policy.vocabulary import position_limit
from nrt_lightning.rollouts import RolloutEngine
from nrt_lightning.signals import TextSignal
from nrt_lightning.structures import Row, Sampling
from nrt_lightning.tools.chat.reading import Speaker
from nrt_lightning.tools.evaluation.results import Results

ANY_LENGTH = 10**9  # nothing is dropped for its length: limits are those of the model


@dataclass
class Outcome:
    """Figures of an evaluation.

    Args:
        figures: as in the results file.
        results: the files.
        continued: questions that an earlier evaluation had answered.
        dropped: why rows were left out; empty if none were.
    """

    figures: dict[str, Any]
    results: Results
    continued: int = 0
    dropped: str = field(default="", kw_only=True)


def evaluate_rows(
    speaker: Speaker,
    rows: Sequence[Row],
    metrics: dict[str, TextSignal],
    settings: AnswerSettings,
    engine: RolloutEngine,
    out: Path,
    batch_size: int = 16,
    tell: Callable[[str], Any] = lambda text: None,
    *,
    overwrite: bool = False,
) -> Outcome:
    """Let a policy answer rows, and write answers and figures.

    Args:
        speaker: the policy with its prompts and limits.
        rows: questions, with the reference answers that the metrics need.
        metrics: by name.
        settings: of the answers.
        engine: samples.
        out: file of the figures; the rows stand beside it.
        batch_size: questions at a time, each with `settings.samples` answers.
        tell: called with a line after each tenth of the questions.
        overwrite: start again if the files exist.

    Raises:
        InputError: rows do not fit the metrics or the model, or `out` holds another evaluation.
    """
    check_references(rows, metrics, confidence=settings.confidence)
    if settings.max_trace_tokens is not None and not speaker.writes_traces:
        raise InputError(f"max_trace_tokens={settings.max_trace_tokens} is not used: the policy was trained to answer "
                         "without a trace. Remove it.")  # fmt: skip
    sampling = settings.sampling(speaker.limits)
    policy = speaker.policy
    encoder = PromptEncoder(policy.tokenizer, speaker.template, ANY_LENGTH, ANY_LENGTH)
    encoded = encoder.encode(distinct(rows), "questions")
    check_room(encoded, sampling, speaker)
    engine.check(policy)
    identity = identity_of(speaker, encoded, metrics, settings, sampling, engine)
    asked = Questionnaire(
        policy, engine, sampling, metrics, settings.seed,
        confidence=settings.confidence, writes_traces=speaker.writes_traces,
    )  # fmt: skip
    with closing(Results(out, identity, overwrite=overwrite)) as results:
        continued = answer_rest(asked, encoded, results, batch_size, tell)
        figures = summarize(results.done, metrics) | {"dropped_rows": encoded.report.dropped}
        results.finish(figures)
    dropped = encoded.report.dropped_text if encoded.report.dropped else ""
    return Outcome(figures, results, continued, dropped=dropped)


def answer_rest(
    asked: Questionnaire, encoded: EncodedRows, results: Results, batch_size: int, tell: Callable[[str], Any]
) -> int:
    """Answer the questions that no earlier evaluation has answered, batch by batch; return the number of the others.

    Args:
        asked: answers a batch.
        encoded: all questions.
        results: the files.
        batch_size: questions at a time.
        tell: called with a line after each tenth of the questions.
    """
    total = len(encoded)
    start = continued = results.continue_after(batch_size, total)
    if continued:
        tell(f"{continued} of {total} questions were answered before")
    while start < total:
        stop = min(start + batch_size, total)
        batch = encoded.collate([encoded[index] for index in range(start, stop)]).to(asked.policy.device)
        results.add(asked.answer(batch))
        if stop * 10 // total > start * 10 // total:
            tell(f"{stop} of {total} questions")
        start = stop
    return continued


def check_room(encoded: EncodedRows, sampling: Sampling, speaker: Speaker) -> None:
    """Check that prompts, traces and answers fit into the model.

    Raises:
        InputError: names the row and the limits.
    """
    network = speaker.policy.network
    room = position_limit(network) or getattr(network.config.get_text_config(), "max_position_embeddings", None)
    if room is None:
        return
    marker = len(speaker.policy.markup.marker_ids) if speaker.writes_traces else 0
    trace = sampling.max_trace_tokens if speaker.writes_traces else 0
    for index, row in enumerate(encoded.rows):
        prompt, written = len(encoded.prompts[index]), max(sampling.max_answer_tokens, len(encoded.answers[index]))
        if prompt + trace + marker + written > room:
            raise InputError(
                f"{row.origin or repr(row.id)}: its prompt has {prompt} tokens, and with a trace of {trace} and an "
                f"answer of {written} it needs more than the {room} that {speaker.policy.source!r} takes. Lower "
                "--max_trace_tokens or --max_answer_tokens, or remove the row."
            )


def identity_of(
    speaker: Speaker,
    encoded: EncodedRows,
    metrics: dict[str, TextSignal],
    settings: AnswerSettings,
    sampling: Sampling,
    engine: RolloutEngine,
) -> dict[str, Any]:
    """All that the answers follow from, as plain values.

    Args are those of `evaluate_rows`, with the encoded rows and the sampling.
    """
    digest = hashlib.blake2b(digest_size=16)
    for index, row in enumerate(encoded.rows):
        texts = json.dumps([row.id, row.messages, row.answer, row.checks])
        digest.update(texts.encode() + encoded.prompts[index].numpy().tobytes())
    drawn = asdict(settings)
    for name in ("temperature", "max_trace_tokens", "max_answer_tokens"):
        drawn[name] = getattr(sampling, name)
    return {
        "model": speaker.policy.source,
        "weights": weights_digest(speaker.policy.network),
        "questions": f"{len(encoded)} rows, {digest.hexdigest()}",
        "template": str(speaker.template),
        "markup": str(speaker.policy.markup),
        "metrics": {name: repr(metric) for name, metric in metrics.items()},
        "engine": type(engine).__name__,
        **drawn,
    }
