"""The forms that a policy's weights can be written in."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from nrt_lightning.errors import InputError
from nrt_lightning.models.policy.plain_weights import plain_config, plain_weights

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy


class ExportForm(ABC):
    """Which weights are written."""

    library: str = "transformers"  # that reads them

    @abstractmethod
    def check(self, policy: Policy) -> None:
        """Refuse a policy that has no such form, before anything is computed or written."""

    @abstractmethod
    def write(self, policy: Policy, directory: Path) -> None:
        """Write the weights into a directory."""


@dataclass(frozen=True)
class WholeModel(ExportForm):
    """All weights as they are.

    Args:
        marker: whether the vocabulary keeps the marker. False leaves weights and tokenizer as they were found, for a
            base that has not learned it: whoever loads it adds it anew.
    """

    marker: bool = True

    def check(self, policy: Policy) -> None:
        """See `ExportForm`."""
        if policy.adapter is not None:
            raise InputError(
                "export form WholeModel: the policy has an adapter, whose weights are not the whole model. Use Merged, "
                "or AdapterFiles for the adapter alone."
            )

    def write(self, policy: Policy, directory: Path) -> None:
        """See `ExportForm`."""
        network: Any = policy.network
        grown = network.get_input_embeddings().weight.shape[0] == policy.marker_id + 1
        if not self.marker and policy.marker_is_new and grown:
            network = copy.deepcopy(network)
            network.resize_token_embeddings(policy.marker_id)
        network.save_pretrained(directory)


@dataclass(frozen=True)
class AdapterFiles(ExportForm):
    """The adapter alone, in the files of peft, which need the base beside them."""

    library = "peft"

    def check(self, policy: Policy) -> None:
        """See `ExportForm`."""
        if policy.adapter is None:
            raise InputError("export form AdapterFiles: the policy has no adapter. Use WholeModel.")
        if policy.marker_is_new and not getattr(policy.adapter, "marker_rows", False):
            raise InputError(
                "export form AdapterFiles: the base does not have the marker and adapter.marker_rows is false, so the "
                "adapter would not have it either. Use Merged, or train with marker_rows."
            )
        live = not policy.settings and not policy.network.name_or_path
        if live or policy.settings.get("weights") == "random":
            raise InputError(
                f"export form AdapterFiles: the adapter's base is {'live' if live else 'random'} and in no files that "
                "others could read it from. Use Merged."
            )

    def write(self, policy: Policy, directory: Path) -> None:
        """See `ExportForm`."""
        policy.model.peft_config["default"].base_model_name_or_path = policy.source
        policy.model.save_pretrained(directory, save_embedding_layers=False)


@dataclass(frozen=True)
class Merged(ExportForm):
    """The base with the adapter's updates added to its weights: a plain model, a base in 4 bits dequantized first.

    Args:
        dtype: of the merged weights.
    """

    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"

    def check(self, policy: Policy) -> None:
        """See `ExportForm`."""
        if policy.adapter is None:
            raise InputError("export form Merged: the policy has no adapter to merge. Use WholeModel.")

    def write(self, policy: Policy, directory: Path) -> None:
        """See `ExportForm`."""
        network, dtype = policy.network, getattr(torch, self.dtype)
        with torch.random.fork_rng(devices=[]):  # its random weights are overwritten
            plain = type(network)._from_config(plain_config(network), dtype=dtype)
        found = plain.state_dict()
        for name, weight in plain_weights(policy, dtype):
            found[name].copy_(weight)
        plain.generation_config = network.generation_config
        plain.save_pretrained(directory)


def default_form(policy: Policy) -> ExportForm:
    """All weights, merged where there is an adapter."""
    return WholeModel() if policy.adapter is None else Merged()
