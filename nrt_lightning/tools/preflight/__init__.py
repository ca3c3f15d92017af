"""Whether NRT can start from a base: what its traces are worth before any training."""

from nrt_lightning.tools.preflight.measures import Measures, measure
from nrt_lightning.tools.preflight.report import report
from nrt_lightning.tools.preflight.sampler import PreflightModule, Sample
from nrt_lightning.tools.preflight.verdict import Verdict, judge

__all__ = ["Measures", "PreflightModule", "Sample", "Verdict", "judge", "measure", "report"]
