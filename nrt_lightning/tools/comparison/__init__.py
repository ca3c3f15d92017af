"""Compares methods on one task with several seeds: runs, tables and a plot."""

from nrt_lightning.tools.comparison.experiment import Comparison, Run
from nrt_lightning.tools.comparison.outcome import Outcome
from nrt_lightning.tools.comparison.runner import run_all
from nrt_lightning.tools.comparison.table import markdown_table, summarize, write_csv

__all__ = ["Comparison", "Outcome", "Run", "markdown_table", "run_all", "summarize", "write_csv"]
