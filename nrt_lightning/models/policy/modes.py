"""Train mode, without noise."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from nrt_lightning.models.policy.frequencies import restore_frequencies


def training_mode(model: Any, *, checkpointing: bool, dropout: bool) -> None:
    """Prepare a model of transformers for training: `from_pretrained` returns eval mode, and Lightning keeps the mode.

    Args:
        model: without adapter.
        checkpointing: recompute activations in the backward pass.
        dropout: keep the model's own dropout and jitter.
    """
    if checkpointing:
        name = "activation_checkpointing_enable"  # versions that have it warn about the old name
        enable = getattr(model, name, None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    restore_frequencies(model)
    if not dropout:
        turn_off_noise(model)
    model.train()


def turn_off_noise(model: nn.Module) -> None:
    """Make the forward passes of a model in train mode those of eval mode; its configuration, and so an export, stays.

    The probability of all dropout becomes 0. Modules with jitter (mixtures of experts), whose settings also have a
    meaning in eval mode, and those that read a dropout from the configuration run in eval mode.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    >>> turn_off_noise(model)
    >>> model[1].p
    0.0
    """
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        jitter = any(isinstance(value, float) and value and "jitter" in name for name, value in vars(module).items())
        config = None if isinstance(module, PreTrainedModel) else getattr(module, "config", None)
        if jitter or (isinstance(config, PretrainedConfig) and any(dropouts(config).values())):
            module.register_forward_pre_hook(enter_eval)
            module.register_forward_hook(leave_eval, always_call=True)
        for name in dropouts(module):  # of models that call `nn.functional.dropout`
            setattr(module, name, 0.0)


def dropouts(settings: object) -> dict[str, float]:
    """The attributes that are probabilities of dropout."""
    return {
        name: value
        for name, value in vars(settings).items()
        if isinstance(value, float) and ("dropout" in name or name.endswith(("pdrop", "layerdrop")))
    }


def enter_eval(module: Any, _: Any) -> None:
    """Put a module, without those inside it, into eval mode for its forward pass."""
    module.trains, module.training = module.training, False


def leave_eval(module: Any, *_: Any) -> None:
    """Undo `enter_eval`: a layer that recomputes its activations asks for its mode before its forward pass."""
    module.training = module.trains
