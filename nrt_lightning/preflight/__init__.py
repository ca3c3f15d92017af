"""Whether NRT can start from a base: what its traces are worth before any training."""

from nrt_lightning.preflight.measures import Measures, measure
from nrt_lightning.preflight.report import report
from nrt_lightning.preflight.sampler import PreflightModule, Sample
from nrt_lightning.preflight.verdict import Verdict, judge

__all__ = ["Measures", "PreflightModule", "Sample", "Verdict", "judge", "measure", "report"]
