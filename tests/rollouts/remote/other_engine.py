"""An engine for a server that is not vLLM, written against `nrt_lightning.rollouts.remote` alone."""

from __future__ import annotations

import os
import tempfile
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from threading import Event

from typing_extensions import override

from nrt_lightning.rollouts.remote import (
    Connection,
    Job,
    Line,
    RemoteEngine,
    atomic_directory,
    on_rank_zero,
    rank,
    run_concurrently,
    write_weights,
)


class OtherEngine(RemoteEngine):
    """Samples from a server with three routes: /limits, /weights and /sample.

    Args:
        url: address of the server.
        patience: seconds without an answer after which the run ends.
        token_variable: environment variable with the server's bearer token.
    """

    def __init__(
        self, url: str = "http://127.0.0.1:9000", patience: float = 60.0, token_variable: str = "OTHER_TOKEN"
    ) -> None:
        super().__init__(tolerance=1e-3)
        self.server = Connection(url, os.environ.get(token_variable), patience)
        self.directory = tempfile.TemporaryDirectory(prefix="other-")
        self.limit = 0

    @override
    def check(self, policy) -> None:
        self.limit = self.server.insist(partial(self.server.call, "GET", "/limits", timeout=10))["context"]

    @property
    @override
    def max_tokens(self) -> int:
        return self.limit

    @override
    def load_weights(self, policy, version: int) -> None:
        target = Path(on_rank_zero(lambda: self.directory.name)) / "weights"
        with atomic_directory(target) if rank() == 0 else nullcontext() as directory:
            write_weights(policy, directory)
        order = {"folder": str(target), "revision": version}
        on_rank_zero(lambda: self.server.insist(partial(self.server.call, "PUT", "/weights", order)))

    @override
    def sample(self, jobs: list[Job], request, progress) -> list[list[Line]]:
        settings = {"length": request.max_new_tokens, "end": request.stop_ids, "never": request.banned_ids}
        settings |= {"heat": request.temperature, "mass": request.top_p, "best": request.top_k}

        def ask(index: int, canceled: Event) -> list[Line]:
            job = jobs[index]
            body = settings | {"tokens": job.prompt_ids, "times": job.count, "seed": job.seed}
            found = self.server.insist(partial(self.server.call, "POST", "/sample", body), canceled=canceled)
            return [Line(text["tokens"], text["logprobs"]) for text in found]

        return run_concurrently(jobs, ask, workers=4, max_new_tokens=request.max_new_tokens, progress=progress)
