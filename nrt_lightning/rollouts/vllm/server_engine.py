"""Engine that samples from vLLM servers over HTTP."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import tempfile
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from nrt_lightning.errors import InputError
from nrt_lightning.export.directories import atomic_directory
from nrt_lightning.functional import check_at_least
from nrt_lightning.losses import SamplerCorrection, TruncatedImportance
from nrt_lightning.rollouts.engine import GenerationRequest, Progress
from nrt_lightning.rollouts.remote.base import RemoteEngine
from nrt_lightning.rollouts.remote.connection import Failed, Refused, Unreachable
from nrt_lightning.rollouts.remote.jobs import Job, Line, run_concurrently
from nrt_lightning.rollouts.remote.processes import on_rank_zero, rank
from nrt_lightning.rollouts.vllm.parameters import sampling_parameters
from nrt_lightning.rollouts.vllm.server import Server
from nrt_lightning.rollouts.vllm.sync import WeightSync, best_sync

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy

log = logging.getLogger(__name__)
RESTORING = Lock()  # several threads may notice a restarted server at the same time
AT_ONCE = 256  # concurrent prompts per server


class VLLMServerEngine(RemoteEngine):
    """Samples from vLLM servers, which `nrt-lightning serve` starts. Token ids are sent and received.

    Prompts are spread over the servers. When the policy's weights have changed, the servers receive them before the
    next sampling. A server that does not answer is asked again; a restarted server receives the weights again.

    Args:
        urls: addresses of the servers.
        sync: how weights are sent; null for the adapter alone if vLLM can load it, and all weights otherwise.
        directory: where weights are written for the servers, readable by the trainer and by the servers; null for a
            temporary directory on this machine.
        patience: seconds without a sign of life after which the run ends. While a server samples, its `/health` is
            asked.
        token_variable: environment variable with the servers' bearer token, if they have one.
        sampler_correction: off-policy correction for a loss whose `sampler_correction` is null; null for none.
        tolerance: largest mean difference between the log-probs of sampler and trainer after weights were sent, in
            nats.

    Raises:
        InputError: before training: a server cannot be reached, refuses the token, serves another model or vocabulary
            or lacks the marker. Later: a server was lost.

    Example:
        >>> VLLMServerEngine(urls=["http://127.0.0.1:8000"]).own_weights
        True
    """

    start_hint = " `nrt-lightning serve` starts a server for a run; serve.max_model_len is its limit."

    def __init__(
        self,
        urls: list[str] = ["http://127.0.0.1:8000"],  # noqa: B006  (never changed)
        sync: WeightSync | None = None,
        directory: str | None = None,
        patience: float = 300.0,
        token_variable: str = "VLLM_API_KEY",
        sampler_correction: SamplerCorrection | None = TruncatedImportance(),  # noqa: B008  (frozen settings)
        tolerance: float = 0.1,
    ) -> None:
        super().__init__(sampler_correction, tolerance)
        check_at_least("engine.patience", patience, 0)
        if not urls:
            raise InputError("engine.urls is empty: give the address of a server, for instance http://127.0.0.1:8000.")
        if directory is not None and not Path(directory).is_dir():
            raise InputError(
                f"engine.directory {directory!r}: no such directory. Create it where the servers can read it."
            )
        token = os.environ.get(token_variable)
        self.servers = [Server(url, token, patience) for url in urls]
        self.sync, self.directory = sync, directory
        self.temporary: tempfile.TemporaryDirectory | None = None  # holds the weights that are being sent
        self.current: tuple[str, Path] | None = None  # name and directory of the version that servers must have

    @override
    def check(self, policy: Policy) -> None:
        self.sync = self.sync or best_sync(policy)
        self.sync.check(policy)
        for server in self.servers:
            server.check(policy, self.sync.routes)

    @property
    @override
    def max_tokens(self) -> int:
        return min(server.max_tokens for server in self.servers)

    @override
    def load_weights(self, policy: Policy, version: int) -> None:
        assert self.sync is not None
        name, target = on_rank_zero(partial(self.new_version, version))
        with atomic_directory(target) if rank() == 0 else nullcontext() as directory:
            self.sync.write(policy, directory)
        before, self.current = self.current, (name, target)
        try:
            on_rank_zero(partial(self.replace, before))
        except BaseException:  # some servers may have the version; the one before stays the current one
            self.current = before
            if rank() == 0:
                self.discard(name, target)
            raise

    def discard(self, name: str, directory: Path) -> None:
        """Remove a version that not all servers could load."""
        assert self.sync is not None
        for server in self.servers:
            try:
                if server.is_alive():
                    self.sync.unload(server, name)
            except (Unreachable, Failed, Refused) as error:
                log.warning(
                    "%s may still hold the weights %s, which others could not load: %s", server.url, name, error
                )
        shutil.rmtree(directory, ignore_errors=True)

    def new_version(self, version: int) -> tuple[str, Path]:
        """Name and directory of a version."""
        if self.temporary is None:
            self.temporary = tempfile.TemporaryDirectory(prefix="nrt-weights-", dir=self.directory)
        name = f"nrt-{secrets.token_hex(4)}-{version}"
        return name, Path(self.temporary.name) / name

    def replace(self, before: tuple[str, Path] | None) -> None:
        """Load the current version on all servers and remove the previous one."""
        assert self.sync is not None
        for server in self.servers:
            server.insist(partial(self.restore, server))
            if before is not None:
                server.insist(partial(self.sync.unload, server, before[0]))
        if before is not None:
            shutil.rmtree(before[1], ignore_errors=True)

    def restore(self, server: Server) -> None:
        """Load the current version on a server that does not have it."""
        assert self.sync is not None
        assert self.current is not None
        name, directory = self.current
        with RESTORING:
            if not self.sync.loaded(server, name):
                self.sync.load(server, name, directory)

    @override
    def sample(self, jobs: list[Job], request: GenerationRequest, progress: Progress | None) -> list[list[Line]]:
        for server in self.servers:
            server.insist(partial(self.restore, server))
        parameters = sampling_parameters(request)

        def ask(index: int, canceled: Event) -> list[Line]:
            server = self.servers[(index + rank()) % len(self.servers)]
            return self.ask(server, jobs[index], parameters, canceled)

        return run_concurrently(jobs, ask, AT_ONCE * len(self.servers), request.max_new_tokens, progress)

    def ask(self, server: Server, job: Job, parameters: dict[str, Any], canceled: Event) -> list[Line]:
        """Sample the continuations of a prompt on a server that may restart meanwhile."""
        assert self.sync is not None
        assert self.current is not None
        model = self.sync.model(server, self.current[0])

        def complete() -> list[Line]:
            try:
                return server.complete(job, parameters, model, canceled)
            except Refused as error:
                if error.status != 404:
                    raise
                raise Unreachable(str(error)) from error  # just restarted, the server no longer has the adapter

        return server.insist(complete, partial(self.restore, server), canceled)
