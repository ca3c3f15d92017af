"""Evaluation of a trained policy on a file of questions, which can be interrupted and continued."""

from nrt_lightning.tools.evaluation.files import check_out
from nrt_lightning.tools.evaluation.results import Results
from nrt_lightning.tools.evaluation.runner import Outcome, evaluate_rows
from nrt_lightning.tools.evaluation.table import table

__all__ = ["Outcome", "Results", "check_out", "evaluate_rows", "table"]
