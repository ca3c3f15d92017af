"""Tells before training whether NRT can start from a base, from the traces that the base samples."""

from nrt_lightning.tools.preflight.measures import Measures, measure
from nrt_lightning.tools.preflight.report import report
from nrt_lightning.tools.preflight.sample import Sample
from nrt_lightning.tools.preflight.sampler import PreflightModule
from nrt_lightning.tools.preflight.setup import Setup
from nrt_lightning.tools.preflight.verdict import Verdict, verdict

__all__ = ["Measures", "PreflightModule", "Sample", "Setup", "Verdict", "measure", "report", "verdict"]
