"""vLLM servers, asked over HTTP."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

from nrt_lightning.errors import InputError
from nrt_lightning.functional import check_at_least
from nrt_lightning.losses import TruncatedImportance
from nrt_lightning.rollouts.engine import Progress
from nrt_lightning.rollouts.remote.base import VLLMEngine
from nrt_lightning.rollouts.remote.connection import Refused, Unreachable
from nrt_lightning.rollouts.remote.files import appearing
from nrt_lightning.rollouts.remote.jobs import Job, Line
from nrt_lightning.rollouts.remote.processes import by_first, rank
from nrt_lightning.rollouts.vllm.server import Server
from nrt_lightning.rollouts.vllm.sync import WeightSync, best_sync

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy

RESTORING = Lock()  # many threads may find at the same time that a server was restarted
AT_ONCE = 256  # prompts of a server that are under way at the same time


class VLLMServerEngine(VLLMEngine):
    """Samples from vLLM servers, which `nrt-lightning serve` starts. Token ids go there and come back.

    Prompts are spread over the servers. Whenever the policy's weights have changed, the servers get them before the
    next text is written. A server that does not answer is asked again; one that was restarted gets the weights anew.

    Args:
        urls: of the servers.
        sync: how weights get there; null for the adapter alone where vLLM can take it, all weights otherwise.
        directory: in which weights are handed over, seen by the trainer and by the servers; null for a temporary one
            of this machine.
        patience: seconds without an answer after which a server is given up and the run ends.
        token_variable: the environment variable that holds the servers' bearer token, if they have one.
        sampler_correction: what the loss corrects for this sampler with, where it has no `sampler_correction` itself;
            null for nothing.
        tolerance: largest mean difference, in nats, of the log-probs of sampler and trainer after weights were sent.

    Raises:
        InputError: before training: a server cannot be reached, refuses the token, serves another model or vocabulary
            or lacks the marker. Later: one has been lost.

    Example:
        >>> VLLMServerEngine(urls=["http://127.0.0.1:8000"]).own_weights
        True
    """

    def __init__(
        self,
        urls: list[str] = ["http://127.0.0.1:8000"],  # noqa: B006  (never changed)
        sync: WeightSync | None = None,
        directory: str | None = None,
        patience: float = 300.0,
        token_variable: str = "VLLM_API_KEY",
        sampler_correction: TruncatedImportance | None = TruncatedImportance(),  # noqa: B008  (frozen settings)
        tolerance: float = 0.1,
    ) -> None:
        super().__init__(sampler_correction, tolerance)
        check_at_least("engine.patience", patience, 0)
        if not urls:
            raise InputError("engine.urls is empty: give the address of a server, for instance http://127.0.0.1:8000.")
        if directory is not None and not Path(directory).is_dir():
            raise InputError(f"engine.directory {directory!r}: no such directory. Make it where the servers see it.")
        token = os.environ.get(token_variable)
        self.servers = [Server(url, token, patience) for url in urls]
        self.sync, self.directory = sync, directory
        self.place: tempfile.TemporaryDirectory | None = None  # of the weights that are handed over
        self.current: tuple[str, Path] | None = None  # name and directory of the version that servers should have

    def check(self, policy: Policy) -> None:
        """See `RolloutEngine`."""
        self.sync = self.sync or best_sync(policy)
        self.sync.check(policy)
        for server in self.servers:
            server.check(policy, self.sync.routes)

    @property
    def max_tokens(self) -> int:
        """See `VLLMEngine`."""
        return min(server.max_tokens for server in self.servers)

    def hand_over(self, policy: Policy, version: int) -> None:
        """See `VLLMEngine`."""
        assert self.sync is not None
        name, target = by_first(self.next_place)
        with appearing(target) if rank() == 0 else nullcontext() as directory:
            self.sync.write(policy, directory)
        before, self.current = self.current, (name, target)
        by_first(lambda: self.replace(before))

    def next_place(self) -> tuple[str, Path]:
        """A name for the next version, and where it is written."""
        if self.place is None:
            self.place = tempfile.TemporaryDirectory(prefix="nrt-weights-", dir=self.directory)
        name = f"nrt-{secrets.token_hex(4)}-{self.version + 1}"
        return name, Path(self.place.name) / name

    def replace(self, before: tuple[str, Path] | None) -> None:
        """Let all servers have the current version and none the one before."""
        assert self.sync is not None
        for server in self.servers:
            server.insist(partial(self.restore, server))
            if before is not None:
                server.insist(partial(self.sync.unload, server, before[0]))
        if before is not None:
            shutil.rmtree(before[1], ignore_errors=True)

    def restore(self, server: Server) -> None:
        """Give a server the current weights, if it does not have them."""
        assert self.sync is not None
        assert self.current is not None
        name, directory = self.current
        with RESTORING:
            if not self.sync.loaded(server, name):
                self.sync.load(server, name, directory)

    def write(self, jobs: list[Job], settings: dict[str, Any], progress: Progress | None) -> list[list[Line]]:
        """See `VLLMEngine`."""
        for server in self.servers:
            server.insist(partial(self.restore, server))
        found: list[list[Line]] = [[] for _ in jobs]
        left, longest = sum(job.count for job in jobs), 0
        pool = ThreadPoolExecutor(min(len(jobs), AT_ONCE * len(self.servers)), thread_name_prefix="vllm")
        places: dict[Future[list[Line]], int] = {}
        given_up = Event()
        try:
            for index, job in enumerate(jobs):
                server = self.servers[(index + rank()) % len(self.servers)]
                places[pool.submit(self.ask, server, job, settings, given_up)] = index
            for done in as_completed(places):
                lines = found[places[done]] = done.result()
                left, longest = left - len(lines), max(longest, *(len(line.ids) for line in lines))
                if progress is not None:
                    progress(longest, settings["max_tokens"], left)
        finally:
            given_up.set()
            pool.shutdown(cancel_futures=True)
        return found

    def ask(self, server: Server, job: Job, settings: dict[str, Any], given_up: Event) -> list[Line]:
        """The continuations of a prompt, from a server that may be restarted meanwhile."""
        assert self.sync is not None
        assert self.current is not None
        model = self.sync.model(server, self.current[0])

        def complete() -> list[Line]:
            try:
                return server.complete(job, settings, model)
            except Refused as error:
                if error.status != 404:
                    raise
                raise Unreachable(str(error)) from error  # restarted a moment ago, it no longer knows the adapter

        return server.insist(complete, partial(self.restore, server), given_up)
