"""A vLLM server as a process of ours."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from nrt_lightning.errors import InputError
from nrt_lightning.functional import check_at_least
from nrt_lightning.rollouts.remote.connection import Connection, Failed, Refused, Unreachable
from nrt_lightning.rollouts.vllm.environment import FOR_WEIGHTS, settings, vllm_python

LOOPBACK = ("127.0.0.1", "localhost", "::1")
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM makes room for


@dataclass
class ServerSettings:
    """How a server is started.

    Args:
        python: the Python that has vLLM; null for that of `VLLM_PYTHON`, `.venv-vllm/bin/python`, or this one.
        host: where it listens. vLLM asks for the token only under /v1, and the orders by which it takes weights over
            are elsewhere: give it no address that others reach.
        port: of the host.
        dtype: of its weights; null for the policy's, or bfloat16 where the trainer's precision is.
        max_model_len: tokens of the longest text; null for the longest that the data and the sampling allow.
        directory: where the policy's own model is written for it; null for `served` in the run's directory.
        token_variable: the environment variable that holds the bearer token; without one, everybody on this machine may
            ask.
        start_seconds: how long it may take to start.
        arguments: further ones for vLLM, for instance `[--tensor-parallel-size, "2"]`.

    Raises:
        InputError: another host than this machine without a token.
    """

    python: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    dtype: str | None = None
    max_model_len: int | None = None
    directory: str | None = None
    token_variable: str = "VLLM_API_KEY"
    start_seconds: float = 600.0
    arguments: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_at_least("serve.port", self.port, 1)
        if self.host not in LOOPBACK and not os.environ.get(self.token_variable):
            raise InputError(
                f"serve.host {self.host!r} is reached from other machines, and {self.token_variable} holds no token. "
                "Set it to a secret, here and where the trainer runs, or listen on 127.0.0.1."
            )

    @property
    def url(self) -> str:
        """Where a trainer on this machine finds it."""
        return f"http://{'127.0.0.1' if self.host == '0.0.0.0' else self.host}:{self.port}"


def server_command(model: str | Path, serve: ServerSettings, rank: int | None = None) -> list[str]:
    """The command that starts a server.

    Args:
        model: its directory.
        serve: the settings.
        rank: of the policy's adapter, where it is sent alone.
    """
    command = [vllm_python(serve.python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", "policy", "--host", serve.host, "--port", str(serve.port)]
    command += ["--generation-config", "vllm", "--logprobs-mode", "processed_logprobs"]
    if serve.dtype is not None:
        command += ["--dtype", serve.dtype]
    if serve.max_model_len is not None:
        command += ["--max-model-len", str(serve.max_model_len)]
    if rank is not None:
        room = next((size for size in RANKS if size >= rank), rank)
        command += ["--enable-lora", "--max-lora-rank", str(room), "--max-loras", "2"]
    if not torch.cuda.is_available():  # generators of a CPU cannot take back what they drew for a part of a prompt
        command += ["--enforce-eager", "--no-enable-chunked-prefill"]
    return command + serve.arguments


def server_variables(serve: ServerSettings) -> dict[str, str]:
    """What is to be set in its environment, without the token."""
    threads = {} if torch.cuda.is_available() or "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": "1"}
    return settings() | threads | FOR_WEIGHTS


def as_text(command: list[str], variables: dict[str, str], serve: ServerSettings) -> str:
    """The command as one would type it."""
    token = [f'VLLM_API_KEY="${serve.token_variable}"'] if os.environ.get(serve.token_variable) else []
    return " ".join([*(f"{name}={value}" for name, value in variables.items()), *token, shlex.join(command)])


class ServerProcess:
    """Started on entering, stopped on leaving.

    Args:
        model: directory of the model that it serves.
        serve: the settings.
        rank: of the policy's adapter, where it is sent alone.
        log: file for what it prints; None for the terminal.
    """

    def __init__(
        self, model: str | Path, serve: ServerSettings, rank: int | None = None, log: str | Path | None = None
    ) -> None:
        self.serve, self.log = serve, log
        self.command = server_command(model, serve, rank)
        self.variables = server_variables(serve)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ServerProcess:
        token = os.environ.get(self.serve.token_variable)
        secret = {"VLLM_API_KEY": token} if token else {}
        out = open(self.log, "ab") if self.log else None
        self.process = subprocess.Popen(
            self.command,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | self.variables | secret,
            stdout=out,
            stderr=subprocess.STDOUT if out else None,
            start_new_session=True,
        )
        if out:
            out.close()
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_until_ready(self) -> None:
        """Return when it answers.

        Raises:
            InputError: it ended, or took too long.
        """
        assert self.process is not None
        connection, began = Connection(self.serve.url), time.monotonic()
        told = f" See {self.log}." if self.log else ""
        while True:
            if self.process.poll() is not None:
                raise InputError(f"vLLM ended with code {self.process.returncode} before it was ready.{told}")
            try:
                connection.call("GET", "/health", timeout=10)
                return
            except (Unreachable, Failed, Refused):
                if time.monotonic() - began > self.serve.start_seconds:
                    raise InputError(
                        f"vLLM was not ready after serve.start_seconds {self.serve.start_seconds:.0f}.{told}"
                    ) from None
            time.sleep(1)

    def stop(self) -> None:
        """End it and its workers."""
        if self.process is None:
            return
        for sign, seconds in ((signal.SIGTERM, 20), (signal.SIGKILL, 20)):
            try:
                os.killpg(self.process.pid, sign)
                self.process.wait(seconds)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self.process.wait()
        self.process = None
