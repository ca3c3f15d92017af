"""Which traces see the answer, and whether the rows have answers, during training."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import Trainer

from nrt_lightning.errors import InputError
from nrt_lightning.training.method import Method


def share_at(trainer: Trainer, method: Method, position: int) -> float:
    """The share of traces that see the answer, in the window that begins at this micro-batch of the run.

    Raises:
        InputError: the share falls over the run, and the trainer has no limit of steps.
    """
    if method.answer_conditioned is None:
        return 0.0
    share = method.answer_conditioned.schedule
    if not share.needs_progress:
        return share.now(0.0)
    total = trainer.estimated_stepping_batches * trainer.accumulate_grad_batches
    if math.isinf(total):
        raise InputError(
            f"answer_conditioned.share {share} falls over the run, which has no end. Set trainer.max_steps or "
            "trainer.max_epochs, or a fixed share."
        )
    return share.now(min(position / total, 1.0))


def check_answers(data: Any, texts: Any, method: Method) -> None:
    """Refuse rows without answers where these go into prompts; the prompts take the template of the data."""
    if method.answer_conditioned is not None:
        rows = getattr(data, "encoded", {}).get("train")
        method.answer_conditioned.check_rows([] if rows is None else rows.rows)
        method.answer_conditioned.use(getattr(data, "template", None) or getattr(texts, "template", None))
