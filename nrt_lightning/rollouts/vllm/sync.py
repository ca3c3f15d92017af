"""Ways for the policy's weights to get to a vLLM server."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from nrt_lightning.errors import InputError
from nrt_lightning.models.policy.plain_weights import plain_weights
from nrt_lightning.rollouts.remote.files import write_adapter, write_weights
from nrt_lightning.rollouts.vllm.server import Server

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy


class WeightSync(ABC):
    """Hands over one version of the weights after the other, each under a name of its own."""

    routes: ClassVar[list[str]]  # of the server, that it needs

    def check(self, policy: Policy) -> None:  # noqa: B027  (all weights can always be sent)
        """Refuse a policy whose weights cannot be handed over so, before they are read."""

    @abstractmethod
    def write(self, policy: Policy, directory: Path | None) -> None:
        """Write the weights, on the process that has a directory; the others take part."""

    @abstractmethod
    def load(self, server: Server, name: str, directory: Path) -> None:
        """Let the server take over what was written. It may have it already."""

    @abstractmethod
    def loaded(self, server: Server, name: str) -> bool:
        """Whether the server has this version; one that was restarted has not."""

    @abstractmethod
    def unload(self, server: Server, name: str) -> None:
        """Let the server forget a version."""

    @abstractmethod
    def model(self, server: Server, name: str) -> str:
        """What to call a version when the server is asked to write."""


@dataclass(frozen=True)
class AdapterSync(WeightSync):
    """The adapter alone, under a new name for each version. The server must serve the policy's own base.

    A new name, for vLLM keeps what it has computed under the old one.
    """

    routes = ["/v1/load_lora_adapter", "/v1/unload_lora_adapter"]  # noqa: RUF012  (ClassVar of the base)

    def check(self, policy: Policy) -> None:
        """See `WeightSync`."""
        reason = adapter_refusal(policy)
        if reason:
            raise InputError(f"engine.sync AdapterSync: {reason}. Use WeightsSync, which sends merged weights.")

    def write(self, policy: Policy, directory: Path | None) -> None:
        """See `WeightSync`."""
        write_adapter(policy, directory)

    def load(self, server: Server, name: str, directory: Path) -> None:
        """See `WeightSync`."""
        if not self.loaded(server, name):
            server.order("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(directory)})

    def loaded(self, server: Server, name: str) -> bool:
        """See `WeightSync`."""
        return any(entry["id"] == name for entry in server.connection.call("GET", "/v1/models")["data"])

    def unload(self, server: Server, name: str) -> None:
        """See `WeightSync`."""
        if self.loaded(server, name):
            server.connection.call("POST", "/v1/unload_lora_adapter", {"lora_name": name})

    def model(self, server: Server, name: str) -> str:
        """See `WeightSync`."""
        return name


@dataclass(frozen=True)
class WeightsSync(WeightSync):
    """All weights, in a directory that the server reads; those of an adapter merged into the base, one in 4 bits
    dequantized. The server then serves this run alone.
    """

    routes = ["/collective_rpc", "/reset_prefix_cache", "/update_weight_version", "/weight_info"]  # noqa: RUF012

    def write(self, policy: Policy, directory: Path | None) -> None:
        """See `WeightSync`."""
        write_weights(plain_weights(policy), directory)

    def load(self, server: Server, name: str, directory: Path) -> None:
        """See `WeightSync`."""
        server.order("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(directory)}})
        for _ in range(100):  # refused while anything still holds a part of the cache
            if server.connection.call("POST", "/reset_prefix_cache")["success"]:
                break
            time.sleep(0.1)
        else:
            raise InputError(
                f"engine.urls {server.url} keeps what it computed with older weights, for it is still writing for "
                "somebody else. Give this run a server of its own."
            )
        server.connection.call("POST", "/update_weight_version", {"new_version": name})

    def loaded(self, server: Server, name: str) -> bool:
        """See `WeightSync`."""
        return server.connection.call("GET", "/weight_info")["weight_version"] == name

    def unload(self, server: Server, name: str) -> None:
        """See `WeightSync`."""

    def model(self, server: Server, name: str) -> str:
        """See `WeightSync`."""
        return server.model


def adapter_refusal(policy: Policy) -> str | None:
    """Why vLLM cannot take the policy's adapter as it is; None if it can."""
    adapter = policy.adapter
    if adapter is None:
        return "the policy has no adapter"
    if getattr(adapter, "marker_rows", False):
        return "vLLM leaves out rows of embeddings that an adapter brings along (policy.adapter.marker_rows)"
    if getattr(adapter, "dora", False):
        return "vLLM has no DoRA (policy.adapter.dora)"
    return None


def best_sync(policy: Policy) -> WeightSync:
    """The adapter where vLLM can take it, all weights otherwise."""
    return WeightsSync() if adapter_refusal(policy) else AdapterSync()
