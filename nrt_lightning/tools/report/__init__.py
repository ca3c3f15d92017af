"""Reports of runs: one HTML page that needs no network."""

from nrt_lightning.tools.report.page import write_report

__all__ = ["write_report"]
