"""Forms in which a policy's weights can be exported."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from typing_extensions import override

from nrt_lightning.errors import InputError
from nrt_lightning.models.policy.plain_weights import plain_config, plain_weights

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy


class ExportForm(ABC):
    """Base class of export forms, which choose the weights to write."""

    library: str = "transformers"  # that loads the files
    relation: str = "finetune"  # to the base, in the words of the hub
    marker: bool = True  # the vocabulary has the marker

    @abstractmethod
    def check(self, policy: Policy) -> None:
        """Check, before anything is computed or written, that the policy has this form.

        Raises:
            InputError: it has not.
        """

    @abstractmethod
    def write(self, policy: Policy, directory: Path) -> None:
        """Write the weights to a directory."""


@dataclass(frozen=True)
class WholeModel(ExportForm):
    """All weights, unchanged.

    Args:
        marker: keep the marker in the vocabulary. False restores the vocabulary of the base, for a policy that was not
            trained with the marker.
    """

    marker: bool = field(default=True, kw_only=True)

    @override
    def check(self, policy: Policy) -> None:
        if policy.adapter is not None:
            raise InputError(
                "export form WholeModel: the policy has an adapter. Use Merged, or AdapterFiles for the adapter alone."
            )

    @override
    def write(self, policy: Policy, directory: Path) -> None:
        network: Any = policy.network
        marker = policy.markup.marker_ids[0]
        grown = network.get_input_embeddings().weight.shape[0] == marker + 1
        if not self.marker and policy.marker_is_new and grown:
            network = copy.deepcopy(network)
            network.resize_token_embeddings(marker)
        network.save_pretrained(directory)


@dataclass(frozen=True)
class AdapterFiles(ExportForm):
    """The adapter alone, in the files of peft. Loading them needs the base."""

    library = "peft"
    relation = "adapter"

    @override
    def check(self, policy: Policy) -> None:
        if policy.adapter is None:
            raise InputError("export form AdapterFiles: the policy has no adapter. Use WholeModel.")
        if policy.marker_is_new and not policy.adapter.marker_rows:
            raise InputError(
                "export form AdapterFiles: neither the base nor the adapter has the marker, since adapter.marker_rows "
                "is false. Use Merged, or train with marker_rows."
            )
        live = policy.live and not policy.network.name_or_path
        if live or policy.settings.get("weights") == "random":
            raise InputError(
                f"export form AdapterFiles: the adapter's base is {'live' if live else 'random'} and in no files. Use "
                "Merged."
            )

    @override
    def write(self, policy: Policy, directory: Path) -> None:
        policy.model.peft_config["default"].base_model_name_or_path = policy.source
        policy.model.save_pretrained(directory, save_embedding_layers=False)


@dataclass(frozen=True)
class Merged(ExportForm):
    """A plain model: the adapter's updates are added to the base, which is dequantized first if necessary.

    Args:
        dtype: of the weights.
    """

    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"

    @override
    def check(self, policy: Policy) -> None:
        if policy.adapter is None:
            raise InputError("export form Merged: the policy has no adapter to merge. Use WholeModel.")

    @override
    def write(self, policy: Policy, directory: Path) -> None:
        network, dtype = policy.network, getattr(torch, self.dtype)
        with torch.random.fork_rng(devices=[]):  # its random weights are overwritten
            plain = type(network)._from_config(plain_config(network), dtype=dtype)
        found = plain.state_dict()
        for name, weight in plain_weights(policy, dtype):
            found[name].copy_(weight)
        plain.generation_config = network.generation_config
        plain.save_pretrained(directory)


def default_form(policy: Policy) -> ExportForm:
    """`Merged` for a policy with an adapter, `WholeModel` otherwise."""
    return WholeModel() if policy.adapter is None else Merged()
