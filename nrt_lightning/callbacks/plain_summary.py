"""Lightning's summary of the model, without the operations that nothing counts."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import ModelSummary
from lightning.pytorch.utilities.model_summary import get_human_readable_count
from typing_extensions import override


class PlainSummary(ModelSummary):
    """One line for each part of the module: name, class, parameters, and how many of them are trained."""

    @override
    @staticmethod
    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        model_size: float,
        total_training_modes: dict[str, int],
        total_flops: int,
        **summarize_kwargs: Any,
    ) -> None:
        columns = dict(summary_data)
        for name, kind, count in zip(columns["Name"], columns["Type"], columns["Params"], strict=True):
            print(f"{name}: {kind}, {str(count).strip()} parameters")
        trained, total = (get_human_readable_count(n).strip() for n in (trainable_parameters, total_parameters))
        print(f"trained: {trained} of {total} parameters, {model_size:,.1f} MB", flush=True)
