"""`nrt-lightning plan`: memory and time of a run, from its configs and the model's `config.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser
from typing_extensions import override

from nrt_lightning.cli.lightning_cli import NRTCLI, make_cli
from nrt_lightning.errors import InputError
from nrt_lightning.functional.validation import check_at_least
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
    """Assumptions of a plan.

    Args:
        prompt_tokens: length of every prompt; null for `data.max_prompt_tokens`.
        trace_tokens: length of every trace; null for `sampling.max_trace_tokens`.
        answer_tokens: length of every answer with its end token; null for `data.max_answer_tokens`.
        device_gib: memory of a device in GiB; null for the memory of the local GPU, if there is one.
        device_tflops: 10^12 operations per second of a device in matrix products; null to omit times.
        device_gbs: 10^9 bytes per second that a device reads from its memory; null to omit times.
    """

    prompt_tokens: int | None = None
    trace_tokens: int | None = None
    answer_tokens: int | None = None
    device_gib: float | None = None
    device_tflops: float | None = None
    device_gbs: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None:
                check_at_least(f"plan.{name}", value, 1)
        if (self.device_tflops is None) != (self.device_gbs is None):
            speeds = f"plan.device_tflops={self.device_tflops} and plan.device_gbs={self.device_gbs}"
            raise InputError(f"{speeds}: times need both. Set both or neither.")

    @property
    def speed(self) -> Speed | None:
        """Speed of a device; None if it is not given."""
        if self.device_tflops is None or self.device_gbs is None:
            return None
        return Speed(self.device_tflops, self.device_gbs)


class PlanCLI(NRTCLI):
    """Reads the configs of `fit` without building a policy or a trainer."""

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_class_arguments(PlanSettings, "plan")
        parser.add_instantiator(lambda kind, *args, **settings: Sketch(*args, **settings), Policy, subclasses=True)

    @override
    def before_instantiate_classes(self) -> None:
        pass  # a plan reads and writes no files

    @override
    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        return None  # type: ignore[return-value]  # a trainer for a GPU cannot be built without one


def main(args: list[str]) -> Plan:
    """Print the plan of a run.

    Args:
        args: options of `fit` and of the plan.
    """
    cli = make_cli(PlanCLI, args, run=False)
    settings, trainer = cli.config_init.plan, cli.config.trainer
    batch = lengths(cli.model, cli.datamodule, settings)
    torch.set_num_threads(1)  # the tensors are too small for more
    plan = make_plan(cli.model, batch, getattr(cli.datamodule, "window", 1), machine(trainer))
    print(report(plan, device_bytes(settings), settings.speed))
    return plan


def lengths(module: Any, data: Any, settings: PlanSettings) -> Lengths:
    """Sizes of a batch whose rows are as long as the limits allow."""
    for name in ("prompt_tokens", "answer_tokens"):
        if getattr(settings, name) is None and not hasattr(data, f"max_{name}"):
            raise InputError(f"plan.{name} is null and {type(data).__name__} has no max_{name}. Set plan.{name}.")
    thinking = isinstance(module, NRTModule)
    sampling = module.method.sampling if thinking else Sampling(group_size=1, max_trace_tokens=0)
    return Lengths(
        prompts=getattr(data, "batch_size", 1),
        group_size=sampling.group_size,
        prompt=settings.prompt_tokens or data.max_prompt_tokens,
        trace=settings.trace_tokens or sampling.max_trace_tokens,
        answer=settings.answer_tokens or data.max_answer_tokens,
        thinking=thinking,
    )


def machine(trainer: Any) -> Machine:
    """The devices that the trainer's settings request."""
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
    """Memory of a device; None if it is unknown."""
    if settings.device_gib is not None:
        return round(settings.device_gib * GIB)
    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None
