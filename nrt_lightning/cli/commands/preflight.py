"""`nrt-lightning preflight`: test before training if NRT can start from a base and its data."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser
from transformers.utils import logging
from typing_extensions import override

from nrt_lightning.callbacks.output import has_terminal
from nrt_lightning.cli.lightning_cli import NRTCLI, make_cli
from nrt_lightning.cli.setting_checks import check_writable
from nrt_lightning.data import MemorySource, QADataModule
from nrt_lightning.data.sampler import shuffled
from nrt_lightning.data.splits import Splits
from nrt_lightning.errors import InputError
from nrt_lightning.functional.validation import check_at_least
from nrt_lightning.modules.nrt import NRTModule
from nrt_lightning.tools.preflight import PreflightModule, report, verdict


class PreflightCLI(NRTCLI):
    """Reads the configs of `fit`; writes no files but the report."""

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_argument("--rows", type=int, default=128, help="number of rows; use a hundred or more")
        parser.add_argument("--json", type=str | None, default=None, help="file for the measurements and the verdict")

    @override
    def before_instantiate_classes(self) -> None:
        self.shown = self.config.trainer.enable_progress_bar is not False
        quiet = {"enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
        for name, value in (quiet | {"logger": False, "callbacks": None, "limit_val_batches": None}).items():
            self.config.trainer[name] = value
        check_at_least("rows", self.config.rows, 2)
        if self.config.json is not None:
            check_writable(str(Path(self.config.json).expanduser().parent), "directory of --json")


def main(args: list[str]) -> None:
    """Measure, print the report and write the figures.

    Args:
        args: options of the command.
    """
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")  # the arguments are those of the process
    settings: dict[str, Any] = {"save_config_callback": None}
    cli: Any = make_cli(PreflightCLI, args, run=False, **settings)
    if not isinstance(cli.model, NRTModule):
        raise InputError(f"preflight needs traces, but model={type(cli.model).__name__} has none. Use NRTModule.")
    if not (terminal := has_terminal()):
        logging.disable_progress_bar()  # of the weights that are read
    rows, data = cli.config.rows, cli.datamodule
    which = choose_rows(data, rows)
    if cli.trainer.is_global_zero and which:
        print(f"preflight looks at {which}", flush=True)
    share = -(-rows // cli.trainer.world_size)
    preflight = PreflightModule(cli.model, share, getattr(data, "batch_size", 4), shown=cli.shown, bar=terminal)
    cli.trainer.validate(preflight, datamodule=data, verbose=False)
    measures = preflight.measures()
    found = verdict(measures)
    if cli.trainer.is_global_zero:
        model = preflight.policy.settings.get("model", preflight.policy.source)
        print(f"\n{report(measures, found, model)}\n")
        if cli.config.json is not None:
            path = Path(cli.config.json).expanduser()
            path.parent.mkdir(parents=True, exist_ok=True)
            figures = dataclasses.asdict(measures) | {"verdict": dataclasses.asdict(found)}
            figures["prompts"] = [dataclasses.asdict(example) for example in preflight.prompts]
            figures["groups"] = [dataclasses.asdict(example) for example in preflight.groups]
            path.write_text(json.dumps(figures, indent=2) + "\n")


def choose_rows(data: Any, rows: int) -> str:
    """Limit the rows to validate on. Validation rows that are taken out of the training rows are joined by others.

    Nothing is trained, so training rows may serve. Test rows are never looked at.

    Args:
        data: the datamodule; others than `QADataModule` keep their validation rows.
        rows: how many.

    Returns:
        How many rows of which splits, for a reader; empty if it is not known.
    """
    if not isinstance(data, QADataModule):
        return ""
    data.eval_batch_size = data.batch_size
    if data.sources["val"] is not None:
        data.max_rows["val"] = min(rows, data.max_rows["val"] or rows)
        return f"validation rows, {data.max_rows['val']} at most"
    splits = Splits(data.sources, data.format, data.max_rows, {"val": data.val_rows, "test": data.test_rows}, data.seed)
    if not splits.given("train"):
        return ""  # refused in setup
    held_out = splits.rows("val")[:rows] if data.val_rows else []
    train = splits.rows("train")
    more = [train[index] for index in shuffled(len(train), data.seed, "preflight").tolist()[: rows - len(held_out)]]
    data.sources["val"] = MemorySource([*held_out, *more])
    data.val_rows, data.max_rows["val"] = 0, None
    return f"{len(held_out)} validation and {len(more)} training rows; {rows} were asked for"
