"""Ways to send the policy's weights to a vLLM server."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from nrt_lightning.errors import InputError
from nrt_lightning.rollouts.remote.files import write_adapter, write_weights
from nrt_lightning.rollouts.vllm.server import Server

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy


class WeightSync(ABC):
    """Sends one version of the weights after another, each under a new name."""

    routes: ClassVar[list[str]]  # that the server must offer

    def check(self, policy: Policy) -> None:  # noqa: B027  (all weights can always be sent)
        """Check, before any weights are read, that the policy's weights can be sent this way.

        Raises:
            InputError: they cannot.
        """

    @abstractmethod
    def write(self, policy: Policy, directory: Path | None) -> None:
        """Write the weights to `directory`, which is None on all processes but 0. Called on all processes."""

    @abstractmethod
    def load(self, server: Server, name: str, directory: Path) -> None:
        """Make the server load the written version, unless it already has."""

    @abstractmethod
    def loaded(self, server: Server, name: str) -> bool:
        """True if the server has this version; a restarted server does not."""

    def unload(self, server: Server, name: str) -> None:  # noqa: B027  (the next version may overwrite it)
        """Make the server drop a version."""

    def model(self, server: Server, name: str) -> str:
        """Model name under which requests find a version."""
        return server.model


@dataclass(frozen=True)
class AdapterSync(WeightSync):
    """Sends the adapter alone. The server must serve the policy's base.

    Every version gets a new name, because vLLM keeps cached results under the old one.
    """

    routes = ["/v1/load_lora_adapter", "/v1/unload_lora_adapter"]  # noqa: RUF012  (ClassVar of the base)

    @override
    def check(self, policy: Policy) -> None:
        reason = adapter_refusal(policy)
        if reason:
            raise InputError(f"engine.sync AdapterSync: {reason}. Use WeightsSync, which sends merged weights.")

    @override
    def write(self, policy: Policy, directory: Path | None) -> None:
        write_adapter(policy, directory)

    @override
    def load(self, server: Server, name: str, directory: Path) -> None:
        if not self.loaded(server, name):
            server.load("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(directory)})

    @override
    def loaded(self, server: Server, name: str) -> bool:
        return any(entry["id"] == name for entry in server.quick("GET", "/v1/models")["data"])

    @override
    def unload(self, server: Server, name: str) -> None:
        if self.loaded(server, name):
            server.call("POST", "/v1/unload_lora_adapter", {"lora_name": name})

    @override
    def model(self, server: Server, name: str) -> str:
        return name


@dataclass(frozen=True)
class WeightsSync(WeightSync):
    """Sends all weights, with adapters merged and quantized weights dequantized. The server then serves one run."""

    routes = ["/collective_rpc", "/reset_prefix_cache", "/update_weight_version", "/weight_info"]  # noqa: RUF012

    @override
    def write(self, policy: Policy, directory: Path | None) -> None:
        write_weights(policy, directory)

    @override
    def load(self, server: Server, name: str, directory: Path) -> None:
        server.load("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(directory)}})
        for _ in range(100):  # refused while any request uses a part of the cache
            if server.quick("POST", "/reset_prefix_cache")["success"]:
                break
            time.sleep(0.1)
        else:
            raise InputError(
                f"engine.urls {server.url} keeps cached results of older weights, since it is serving other requests. "
                "Start a server for this run alone."
            )
        server.quick("POST", "/update_weight_version", {"new_version": name})

    @override
    def loaded(self, server: Server, name: str) -> bool:
        return server.quick("GET", "/weight_info")["weight_version"] == name


def adapter_refusal(policy: Policy) -> str | None:
    """Why vLLM cannot load the policy's adapter; None if it can."""
    adapter = policy.adapter
    if adapter is None:
        return "the policy has no adapter"
    if adapter.marker_rows:
        return "vLLM ignores embedding rows in an adapter (policy.adapter.marker_rows)"
    if getattr(adapter, "dora", False):
        return "vLLM does not support DoRA (policy.adapter.dora)"
    return None


def best_sync(policy: Policy) -> WeightSync:
    """`AdapterSync` if vLLM can load the policy's adapter, `WeightsSync` otherwise."""
    return WeightsSync() if adapter_refusal(policy) else AdapterSync()
