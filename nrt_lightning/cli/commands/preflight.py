"""`nrt-lightning preflight`: test before training if NRT can start from a base and its data."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser
from typing_extensions import override

from nrt_lightning.cli.main import NRTCLI, check_writable, make_cli
from nrt_lightning.data import QADataModule
from nrt_lightning.errors import InputError
from nrt_lightning.functional.validation import check_at_least
from nrt_lightning.modules.nrt import NRTModule
from nrt_lightning.tools.preflight import PreflightModule, measure, report, verdict


class PreflightCLI(NRTCLI):
    """Reads the configs of `fit`; writes no files but the report."""

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_argument("--rows", type=int, default=128, help="number of validation rows; use a hundred or more")
        parser.add_argument("--json", type=str | None, default=None, help="file for the measurements and the verdict")

    @override
    def before_instantiate_classes(self) -> None:
        quiet = {"logger": False, "callbacks": None, "enable_checkpointing": False, "enable_model_summary": False}
        for name, value in (quiet | {"limit_val_batches": 1.0}).items():
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
    rows = cli.config.rows
    restrict(cli.datamodule, rows)
    preflight = PreflightModule(cli.model, -(-rows // cli.trainer.world_size), getattr(cli.datamodule, "batch_size", 4))
    cli.trainer.validate(preflight, datamodule=cli.datamodule, verbose=False)
    measures = measure(preflight)
    found = verdict(measures)
    if cli.trainer.is_global_zero:
        model = preflight.policy.settings.get("model", preflight.policy.source)
        print(f"\n{report(measures, found, model)}\n")
        if cli.config.json is not None:
            path = Path(cli.config.json).expanduser()
            path.parent.mkdir(parents=True, exist_ok=True)
            figures = dataclasses.asdict(measures) | {"verdict": dataclasses.asdict(found)}
            path.write_text(json.dumps(figures, indent=2) + "\n")


def restrict(data: Any, rows: int) -> None:
    """Limit the validation rows; without validation data, take them from the training rows."""
    if isinstance(data, QADataModule):
        if data.sources["val"] is None:
            data.val_rows = rows
        data.max_rows["val"] = min(rows, data.max_rows["val"] or rows)
