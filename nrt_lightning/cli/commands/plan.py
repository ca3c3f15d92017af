"""`nrt-lightning plan`: what a run needs, from its configs and the model's `config.json` alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from nrt_lightning.cli.main import NRTCLI, make_cli
from nrt_lightning.errors import InputError
from nrt_lightning.models.policy.policy import Policy
from nrt_lightning.modules.nrt import NRTModule
from nrt_lightning.structures import Sampling
from nrt_lightning.tools.planning.duration import Speed
from nrt_lightning.tools.planning.plan import Machine, Plan, make_plan
from nrt_lightning.tools.planning.report import GIB, report
from nrt_lightning.tools.planning.sizes import Lengths
from nrt_lightning.tools.planning.sketch import Sketch

PRECISIONS = {"None": "32-true", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}  # short names of Lightning


@dataclass
class PlanSettings:
    """What a plan assumes.

    Args:
        prompt_tokens: length of every prompt; null for the data's limit.
        trace_tokens: length of every trace; null for the sampling's limit.
        answer_tokens: length of every answer with its end token; null for the data's limit.
        device_gib: memory of a device, in GiB; null for that of the GPU here, where there is one.
        device_tflops: 10^12 operations a second that a device achieves in matrix products; null to give no times.
        device_gbs: 10^9 bytes a second that a device reads from its memory; null to give no times.
    """

    prompt_tokens: int | None = None
    trace_tokens: int | None = None
    answer_tokens: int | None = None
    device_gib: float | None = None
    device_tflops: float | None = None
    device_gbs: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value < 1:
                raise InputError(f"plan.{name} is {value}: give 1 or more, or null.")
        if (self.device_tflops is None) != (self.device_gbs is None):
            raise InputError("plan.device_tflops and plan.device_gbs give times together: set both, or neither.")

    @property
    def speed(self) -> Speed | None:
        """Of a device, where it is given."""
        return (
            None
            if self.device_tflops is None or self.device_gbs is None
            else Speed(self.device_tflops, self.device_gbs)
        )


class PlanCLI(NRTCLI):
    """Reads the configs of `fit`, and makes neither a policy nor a trainer."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Those of `fit`, and the plan's own."""
        super().add_arguments_to_parser(parser)
        parser.add_class_arguments(PlanSettings, "plan")
        parser.add_instantiator(lambda kind, *args, **settings: Sketch(*args, **settings), Policy, subclasses=True)

    def before_instantiate_classes(self) -> None:
        """Nothing is written or read."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """None: a plan for a GPU can be made without one."""
        return None  # type: ignore[return-value]


def main(args: list[str]) -> Plan:
    """Print the plan of a run.

    Args:
        args: those of `fit`.
    """
    cli = make_cli(PlanCLI, args, run=False)
    settings, trainer = cli.config_init.plan, cli.config.trainer
    batch = lengths(cli.model, cli.datamodule, settings)
    torch.set_num_threads(1)  # the tensors of a plan are too small for more
    plan = make_plan(cli.model, batch, getattr(cli.datamodule, "window", 1), machine(trainer))
    print(report(plan, device_bytes(settings), settings.speed))
    return plan


def lengths(module: Any, data: Any, settings: PlanSettings) -> Lengths:
    """The rows of a batch, as long as the limits allow."""
    for name in ("prompt_tokens", "answer_tokens"):
        if getattr(settings, name) is None and not hasattr(data, f"max_{name}"):
            raise InputError(f"{type(data).__name__} has no max_{name}: set --plan.{name} to what to plan for.")
    thinking = isinstance(module, NRTModule)
    sampling = module.sampling if thinking else Sampling(group_size=1, max_trace_tokens=0)
    return Lengths(
        prompts=getattr(data, "batch_size", 1),
        group_size=sampling.group_size,
        prompt=settings.prompt_tokens or data.max_prompt_tokens,
        trace=settings.trace_tokens or sampling.max_trace_tokens,
        answer=settings.answer_tokens or data.max_answer_tokens,
        thinking=thinking,
    )


def machine(trainer: Any) -> Machine:
    """What the trainer's settings ask for."""
    gpu = trainer.accelerator in ("gpu", "cuda") or (trainer.accelerator == "auto" and torch.cuda.is_available())
    devices = trainer.devices
    if devices in ("auto", "-1", -1):
        devices = max(1, torch.cuda.device_count()) if gpu else 1
    count = len(devices) if isinstance(devices, list) else int(devices)
    strategy = str(getattr(trainer.strategy, "class_path", trainer.strategy))
    return Machine(
        precision=PRECISIONS.get(str(trainer.precision), str(trainer.precision)),
        devices=count * trainer.num_nodes,
        accumulate=trainer.accumulate_grad_batches,
        sharded=any(name in strategy.lower() for name in ("fsdp", "modelparallel")),
        gpu=gpu,
    )


def device_bytes(settings: PlanSettings) -> int | None:
    """Memory of a device, if it is known."""
    if settings.device_gib is not None:
        return round(settings.device_gib * GIB)
    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None
