"""`nrt-lightning serve`: a vLLM server for a run, started with the configs of `fit`."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from nrt_lightning.cli.main import NRTCLI, make_cli
from nrt_lightning.errors import InputError
from nrt_lightning.models.policy.policy import Policy
from nrt_lightning.rollouts.vllm.serving import ServerProcess, ServerSettings, as_text, write_served_model
from nrt_lightning.rollouts.vllm.sync import adapter_refusal
from nrt_lightning.structures import Sampling


class ServeCLI(NRTCLI):
    """Reads the configs of `fit`, and makes no trainer."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Those of `fit`, and the server's."""
        super().add_arguments_to_parser(parser)
        parser.add_class_arguments(ServerSettings, "serve")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """None: what trains runs elsewhere."""
        return None  # type: ignore[return-value]


def main(args: list[str]) -> None:
    """Write the policy's model, start a server of it, and stop it when interrupted or terminated.

    Args:
        args: those of `fit`.
    """
    for sign in (signal.SIGINT, signal.SIGTERM):  # a shell lets its background jobs ignore the first
        signal.signal(sign, interrupt)
    cli = make_cli(ServeCLI, args, run=False)
    process = server_of(cli)
    print(f"{as_text(process.command, process.variables, process.serve)}\n", flush=True)
    try:
        with process:
            print(f"ready: engine.urls [{process.serve.url}]; stop it with Ctrl-C", flush=True)
            assert process.process is not None
            process.process.wait()
    except KeyboardInterrupt:
        print("stopped")


def interrupt(*_: Any) -> None:
    """End with what is to be done at the end."""
    raise KeyboardInterrupt


def server_of(cli: NRTCLI) -> ServerProcess:
    """The server that a run needs, not yet started."""
    settings, config = cli.config_init.serve, cli.config
    policy: Policy = cli.model.policy
    root = Path(config.trainer.default_root_dir or ".")
    target = Path(settings.directory) if settings.directory else root / "served"
    if settings.max_model_len is None:
        settings.max_model_len = longest(cli.model, cli.datamodule)
    if settings.dtype is None:
        half = "bf16" in str(config.trainer.precision)
        settings.dtype = "bfloat16" if half else str(policy.dtype).removeprefix("torch.")
    alone = adapter_refusal(policy) is None
    process = ServerProcess(target.absolute(), settings, policy.adapter.rank if alone else None)  # type: ignore[union-attr]
    write_served_model(policy.load(), target)
    return process


def longest(module: Any, data: Any) -> int:
    """Tokens of the longest text of a run."""
    if not hasattr(data, "max_prompt_tokens"):
        raise InputError(
            f"{type(data).__name__} has no max_prompt_tokens: set --serve.max_model_len to the longest text."
        )
    sampling: Sampling = getattr(module, "sampling", None) or Sampling(max_trace_tokens=0)
    return (
        data.max_prompt_tokens + sampling.max_trace_tokens + 1 + max(sampling.max_answer_tokens, data.max_answer_tokens)
    )
