"""Train mode, and dropout."""

from __future__ import annotations

from typing import Any

from torch import nn

from nrt_lightning.models.policy.frequencies import restore_frequencies


def training_mode(model: Any, *, checkpointing: bool, dropout: bool) -> None:
    """Prepare a model of transformers for training: `from_pretrained` returns eval mode, and Lightning keeps the mode.

    Args:
        model: without adapter.
        checkpointing: recompute activations in the backward pass.
        dropout: keep the model's own dropout.
    """
    if checkpointing:
        name = "activation_checkpointing_enable"  # versions that have it warn about the old name
        enable = getattr(model, name, None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    restore_frequencies(model)
    if not dropout:
        turn_off_dropout(model)
    model.train()


def turn_off_dropout(model: nn.Module) -> None:
    """Set the probability of all dropout of a model to 0; its configuration, and so an export, stays as it is.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    >>> turn_off_dropout(model)
    >>> model[1].p
    0.0
    """
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, value in vars(module).items():  # of models that call `nn.functional.dropout`
            if isinstance(value, float) and ("dropout" in name or name.endswith(("pdrop", "layerdrop"))):
                setattr(module, name, 0.0)
