"""Trained policies as directories that other libraries read."""

from nrt_lightning.export.forms import AdapterFiles, ExportForm, Merged, WholeModel
from nrt_lightning.export.record import RunRecord
from nrt_lightning.export.writer import check_target, export_policy

__all__ = ["AdapterFiles", "ExportForm", "Merged", "RunRecord", "WholeModel", "check_target", "export_policy"]
