"""`nrt-lightning evaluate`: answer the questions of a file, and measure the answers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule

from nrt_lightning.cli.files_given import is_file
from nrt_lightning.cli.lightning_cli import import_classes
from nrt_lightning.cli.parser import PlainParser
from nrt_lightning.cli.setting_checks import check_writable
from nrt_lightning.cli.speakers import add_speaker_options, device_of, speaker_from
from nrt_lightning.cli.trained import run_config, split_options
from nrt_lightning.data import FileSource, MemorySource, PromptTemplate, QADataModule, QASource
from nrt_lightning.data.arguments import Source
from nrt_lightning.data.formats import RowFormat
from nrt_lightning.data.splits import Splits
from nrt_lightning.errors import InputError
from nrt_lightning.evaluation.questions import AnswerSettings, Metrics, check_references, named
from nrt_lightning.functional.validation import check_at_least
from nrt_lightning.rollouts import RolloutEngine, TransformersEngine
from nrt_lightning.signals import TextSignal
from nrt_lightning.structures import Row
from nrt_lightning.tools.evaluation import check_out, evaluate_rows, table

HELP = {
    "--questions": "a file, directory or hub name with questions and answers, or a source; null for the test rows of "
    "the run",
    "--format": "which columns hold question and answer; null for QuestionAnswer",
    "--split": "split of a directory or hub name; null for test",
    "--rows": "use only the first rows; null for all",
    "--metrics": "classes of metrics, or a mapping of names to them; null for ExactMatch",
    "--template": "makes the prompts; null for that of the run or export",
    "--engine": "samples",
    "--out": "JSON file of the figures; the answers stand beside it in NAME.rows.jsonl",
    "--batch_size": "questions at a time",
    "--overwrite": "start again if the files exist, rather than go on",
}


def parser_of() -> PlainParser:
    """The parser of the command."""
    import_classes()
    parser = PlainParser(prog="nrt-lightning evaluate", description=(__doc__ or "").splitlines()[0])
    add_speaker_options(parser)
    options: dict[str, tuple[Any, Any]] = {
        "--questions": (Source, None),
        "--format": (RowFormat | None, None),
        "--split": (str | None, None),
        "--rows": (int | None, None),
        "--metrics": (Metrics, None),
        "--template": (PromptTemplate | None, None),
        "--engine": (RolloutEngine, TransformersEngine()),
        "--out": (str, "evaluation.json"),
        "--batch_size": (int, 16),
        "--overwrite": (bool, False),
    }
    for name, (kind, default) in options.items():
        parser.add_argument(name, type=kind, default=default, help=HELP[name])
    parser.add_class_arguments(AnswerSettings)
    return parser


def main(args: list[str]) -> None:
    """Answer, measure, print the table.

    Args:
        args: options of the command, and those of `fit` that name a run.
    """
    own, run = split_options(args)
    parser = parser_of()
    given = parser.instantiate(parser.parse_args(own))
    settings = AnswerSettings(**{name: given[name] for name in vars(AnswerSettings())})
    for name in ("rows", "batch_size"):
        if given[name] is not None:
            check_at_least(name, given[name], 1)
    out = Path(given.out).expanduser()
    check_out(out, overwrite=given.overwrite)
    check_writable(str(out.parent), "directory of --out")
    metrics = named(given.metrics)
    device = device_of(given.device)
    rows = rows_of(given, run, metrics)
    check_references(rows, metrics, confidence=settings.confidence)
    with redirect_stdout(sys.stderr):  # which checkpoint is read
        speaker = speaker_from("evaluate", given, run)
    speaker.policy.to(device)
    if given.template is not None:
        speaker.template = given.template.with_markup(speaker.policy.markup)
    try:
        outcome = evaluate_rows(
            speaker, rows, metrics, settings, given.engine, out, given.batch_size,
            lambda text: print(text, file=sys.stderr, flush=True), overwrite=given.overwrite,
        )  # fmt: skip
    except KeyboardInterrupt:
        goes_on = "without --overwrite, the same command" if given.overwrite else "the same command"
        raise KeyboardInterrupt(f"{goes_on} goes on after the answers that are written") from None
    print(table(outcome.figures))
    if outcome.dropped:
        print(outcome.dropped)
    print(f"\nwritten to {outcome.results.path} and {outcome.results.rows_path}")


def rows_of(given: Any, run: Sequence[str], metrics: dict[str, TextSignal]) -> list[Row]:
    """The rows of the questions, or the test rows of the run.

    Raises:
        InputError: there are none.
    """
    source = given.questions
    if source is None:
        refuse_unused(given, "the test rows of the run are", "--format", "--split")
        return test_rows(run)[: given.rows]
    if isinstance(source, FileSource | MemorySource):
        refuse_unused(given, f"{type(source).__name__} is", "--split")
        if source.format is not None:
            refuse_unused(given, "a source with a format is", "--format")
    elif isinstance(source, QASource):
        refuse_unused(given, f"{type(source).__name__} is", "--format", "--split")
        return source.rows()[: given.rows]
    else:
        if is_file(source):
            refuse_unused(given, f"the file {source} is", "--split")
        source = FileSource(source, split=given.split or "test")
    source.format = source.format or given.format
    source.max_rows = source.max_rows or given.rows
    needed = any(metric.needs_reference_answer for metric in metrics.values())
    source.require_answers = source.require_answers and needed
    return source.rows()[: given.rows]


def refuse_unused(given: Any, why: str, *options: str) -> None:
    """Refuse options that the questions do not need.

    Raises:
        InputError: names the option.
    """
    for option in options:
        if (value := given[option.removeprefix("--")]) is not None:
            shown = repr(value) if isinstance(value, str) else type(value).__name__
            raise InputError(f"{option}={shown} is not used: {why} read as it is. Remove it.")


def test_rows(run: Sequence[str]) -> list[Row]:
    """The test rows of a run's data.

    Raises:
        InputError: no run is named, or it has none.
    """
    if not run:
        raise InputError("evaluate: no --questions. Give a file, or --config=FILE of a run for its test rows.")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    data = parser.instantiate(parser.parse_object({"data": run_config(run).data})).data
    if not isinstance(data, QADataModule):
        raise InputError(f"evaluate: data={type(data).__name__} has no test rows to read. Give --questions=FILE.")
    held_out = {"val": data.val_rows, "test": data.test_rows}
    splits = Splits(data.sources, data.format, data.max_rows, held_out, data.seed)
    if not splits.given("test"):
        raise InputError("evaluate: the run has no test rows. Give --questions=FILE, or set data.test.")
    return splits.rows("test")
