"""`nrt-lightning serve`: start a vLLM server for a run from the configs of `fit`."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser
from typing_extensions import override

from nrt_lightning.cli.lightning_cli import NRTCLI, make_cli
from nrt_lightning.errors import InputError
from nrt_lightning.models.policy.policy import Policy
from nrt_lightning.rollouts.vllm.serving import ServerProcess, ServerSettings, as_text, write_served_model
from nrt_lightning.rollouts.vllm.sync import adapter_refusal
from nrt_lightning.structures import Sampling


class ServeCLI(NRTCLI):
    """Reads the configs of `fit` without building a trainer."""

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_class_arguments(ServerSettings, "serve")

    @override
    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        return None  # type: ignore[return-value]  # training runs in another process


def main(args: list[str]) -> None:
    """Write the policy's model and serve it until interrupted or terminated.

    Args:
        args: options of `fit` and of the server.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # background jobs of a shell ignore SIGINT by default
        signal.signal(number, interrupt)
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
    """Signal handler that runs `finally` blocks and context managers."""
    raise KeyboardInterrupt


def server_of(cli: NRTCLI) -> ServerProcess:
    """The server for a run, not started yet."""
    settings, config = cli.config_init.serve, cli.config
    policy: Policy = cli.model.policy
    root = Path(config.trainer.default_root_dir or ".")
    target = Path(settings.directory) if settings.directory else root / "served"
    if settings.max_model_len is None:
        settings.max_model_len = longest_text(cli.model, cli.datamodule)
    if settings.dtype is None:
        half = "bf16" in str(config.trainer.precision)
        settings.dtype = "bfloat16" if half else str(policy.dtype).removeprefix("torch.")
    adapter_only = adapter_refusal(policy) is None
    process = ServerProcess(target.absolute(), settings, policy.adapter.rank if adapter_only else None)  # type: ignore[union-attr]
    write_served_model(policy.load(), target)
    return process


def longest_text(module: Any, data: Any) -> int:
    """Maximum number of tokens in a text of the run."""
    if not hasattr(data, "max_prompt_tokens"):
        raise InputError(
            f"serve.max_model_len is null and {type(data).__name__} has no max_prompt_tokens. Set serve.max_model_len."
        )
    sampling: Sampling = module.method.sampling if hasattr(module, "method") else Sampling(max_trace_tokens=0)
    return (
        data.max_prompt_tokens + sampling.max_trace_tokens + 1 + max(sampling.max_answer_tokens, data.max_answer_tokens)
    )
