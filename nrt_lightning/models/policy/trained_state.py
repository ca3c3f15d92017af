"""State dicts of the trained weights alone."""

from __future__ import annotations

from typing import Any

from torch import nn

from nrt_lightning.models.sharding.base import plain_name


def keep_only_trained(module: nn.Module) -> None:
    """Omit frozen weights from the module's state dict and do not require them on loading.

    Trained weights stay required.
    """
    module.register_state_dict_post_hook(drop_frozen)
    module.register_load_state_dict_post_hook(forgive_frozen)


def trained_names(module: nn.Module) -> set[str]:
    """Names of the trained parameters."""
    return {plain_name(name) for name, parameter in module.named_parameters() if parameter.requires_grad}


def drop_frozen(module: nn.Module, state_dict: dict[str, Any], prefix: str, local_metadata: Any) -> None:
    """Remove frozen weights from a state dict."""
    kept = {prefix + name for name in trained_names(module)}
    for key in [key for key in state_dict if key.startswith(prefix) and key not in kept]:
        del state_dict[key]


def forgive_frozen(module: nn.Module, incompatible: Any) -> None:
    """Remove frozen weights from the list of missing keys, whose names start with the module's prefix."""
    trained = trained_names(module)
    everything = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    frozen = tuple(name for name in (plain_name(name) for name, _ in everything) if name not in trained)
    missing: list[str] = incompatible.missing_keys
    missing[:] = [key for key in missing if not key.endswith(frozen)]
