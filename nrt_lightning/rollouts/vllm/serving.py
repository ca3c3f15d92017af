"""Starts and stops a vLLM server."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nrt_lightning.errors import InputError
from nrt_lightning.functional import check_at_least
from nrt_lightning.rollouts.remote.connection import Connection, Failed, Refused, Unreachable
from nrt_lightning.rollouts.remote.files import write_model
from nrt_lightning.rollouts.vllm.environment import FOR_WEIGHTS, missing_variables, vllm_python

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy

LOOPBACK = ("127.0.0.1", "localhost", "::1")
ADDRESS = ("--host", "--port")  # arguments of vLLM, which accepts their first letters
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # maximum LoRA ranks that vLLM accepts


@dataclass
class ServerSettings:
    """How a server is started.

    Args:
        python: a Python with vLLM; null for `VLLM_PYTHON`, `.venv-vllm/bin/python`, or this one.
        host: address to listen on.
        port: port to listen on.
        dtype: of its weights; null for the policy's, or bfloat16 if the trainer's precision is.
        max_model_len: largest number of tokens in a sequence; null for the largest that data and sampling allow.
        directory: where the policy's model is written for the server; null for `served` in the run's directory.
        token_variable: environment variable with the bearer token; without a token, everybody on this machine has
            access.
        start_seconds: time limit for the start.
        arguments: more arguments of vLLM, for instance `[--tensor-parallel-size, "2"]`.
        reachable_by_others: allow a `host` that other machines can reach. vLLM checks the token only under /v1, and the
            routes that load weights are elsewhere: whoever reaches the port can replace the weights.

    Raises:
        InputError: `host` is not this machine, without `reachable_by_others` or without a token; or `arguments` give
            an address.
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
    reachable_by_others: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        check_at_least("serve.port", self.port, 1)
        for word in self.arguments:
            name = word.partition("=")[0]
            if any(option.startswith(name) and len(name) > 3 for option in ADDRESS):
                raise InputError(f"serve.arguments contains {word!r}. Set serve.host and serve.port instead.")
        if self.host not in LOOPBACK and not self.reachable_by_others:
            raise InputError(
                f"serve.host {self.host!r} can be reached from other machines, and vLLM's orders to load weights ask "
                "for no token. Listen on 127.0.0.1, or set serve.reachable_by_others=true where a firewall keeps "
                "others away."
            )
        if self.host not in LOOPBACK and not os.environ.get(self.token_variable):
            raise InputError(
                f"serve.host {self.host!r} can be reached from other machines, but {self.token_variable} is not set. "
                "Set it to a secret, here and where the trainer runs, or listen on 127.0.0.1."
            )

    @property
    def url(self) -> str:
        """Address for a trainer on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


def server_command(model: str | Path, serve: ServerSettings, rank: int | None = None) -> list[str]:
    """The command that starts a server.

    Args:
        model: directory of the model.
        serve: the settings.
        rank: of the policy's adapter, if the adapter is sent alone.
    """
    command = [vllm_python(serve.python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", "policy", "--host", serve.host, "--port", str(serve.port)]
    command += ["--generation-config", "vllm", "--logprobs-mode", "processed_logprobs"]
    if serve.dtype is not None:
        command += ["--dtype", serve.dtype]
    if serve.max_model_len is not None:
        command += ["--max-model-len", str(serve.max_model_len)]
    if rank is not None:
        largest = next((size for size in RANKS if size >= rank), rank)
        command += ["--enable-lora", "--max-lora-rank", str(largest), "--max-loras", "2"]
    if not torch.cuda.is_available():  # CPU generators cannot undo draws made for a part of a prompt
        command += ["--enforce-eager", "--no-enable-chunked-prefill"]
    return command + serve.arguments


def server_variables(serve: ServerSettings) -> dict[str, str]:
    """Environment variables of the server, without the token."""
    threads = {} if torch.cuda.is_available() or "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": "1"}
    return missing_variables() | threads | FOR_WEIGHTS


def as_text(command: list[str], variables: dict[str, str], serve: ServerSettings) -> str:
    """The command as typed in a shell."""
    token = [f'VLLM_API_KEY="${serve.token_variable}"'] if os.environ.get(serve.token_variable) else []
    return " ".join([*(f"{name}={value}" for name, value in variables.items()), *token, shlex.join(command)])


def write_served_model(policy: Policy, target: Path) -> Path:
    """Write the policy's model for vLLM.

    On a CPU, vLLM packs the output head, and packs new weights only under the head's name: tied heads are untied.
    """
    return write_model(policy, target, tied=torch.cuda.is_available())


class ServerProcess:
    """Context manager that starts a server and stops it.

    Args:
        model: directory of the model.
        serve: the settings.
        rank: of the policy's adapter, if the adapter is sent alone.
        log: file for its output; None for the terminal.
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
        """Return when the server answers.

        Raises:
            InputError: it exited, or took too long.
        """
        assert self.process is not None
        connection, began = Connection(self.serve.url), time.monotonic()
        hint = f" See {self.log}." if self.log else ""
        while True:
            if self.process.poll() is not None:
                raise InputError(f"vLLM exited with code {self.process.returncode} before it was ready.{hint}")
            try:
                connection.call("GET", "/health", timeout=10)
                return
            except (Unreachable, Failed, Refused):
                if time.monotonic() - began > self.serve.start_seconds:
                    raise InputError(
                        f"vLLM was not ready after serve.start_seconds {self.serve.start_seconds:.0f}.{hint}"
                    ) from None
            time.sleep(1)

    def stop(self) -> None:
        """Stop the server and its workers."""
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
