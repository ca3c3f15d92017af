"""`nrt-lightning preflight`: whether NRT can start from the base and the rows of a config, before any training."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from nrt_lightning.cli.main import NRTCLI, check_writable, make_cli
from nrt_lightning.data import QADataModule
from nrt_lightning.errors import InputError
from nrt_lightning.modules.nrt import NRTModule
from nrt_lightning.tools.preflight import PreflightModule, measure, report, verdict


class PreflightCLI(NRTCLI):
    """Reads the configs that `fit` reads."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The options beside trainer, model and data."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--rows", type=int, default=128, help="validation rows to look at")
        parser.add_argument("--json", type=str | None, default=None, help="a file for the figures and the verdict")

    def before_instantiate_classes(self) -> None:
        """Leave nothing behind but the report."""
        quiet = {"logger": False, "callbacks": None, "enable_checkpointing": False, "enable_model_summary": False}
        for name, value in (quiet | {"limit_val_batches": 1.0}).items():
            self.config.trainer[name] = value
        if self.config.rows < 2:
            raise InputError(f"rows is {self.config.rows}: give 2 or more; a hundred or more tell something.")
        if self.config.json is not None:
            check_writable(str(Path(self.config.json).expanduser().parent), "the directory of json,")


def main(args: list[str]) -> None:
    """Look, print the report, and write the figures where they are wanted.

    Args:
        args: of the command.
    """
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")  # these are the process's own
    settings: dict[str, Any] = {"save_config_callback": None, "parser_kwargs": {"allow_abbrev": False}}
    cli: Any = make_cli(PreflightCLI, args, run=False, **settings)
    if not isinstance(cli.model, NRTModule):
        raise InputError(f"preflight looks at traces, and {type(cli.model).__name__} writes none. Give an NRTModule.")
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
    """Read no more than is looked at; where there are no validation rows, take training rows in their place."""
    if isinstance(data, QADataModule):
        if data.sources["val"] is None:
            data.val_rows = rows
        data.max_rows["val"] = min(rows, data.max_rows["val"] or rows)
