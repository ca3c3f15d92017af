"""Parts of Lightning under which a policy cannot be trained, each with the reason and what to use instead."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
)
from lightning.pytorch.profilers import XLAProfiler
from lightning.pytorch.strategies import (
    DeepSpeedStrategy,
    ModelParallelStrategy,
    SingleDeviceXLAStrategy,
    Strategy,
    XLAStrategy,
)
from lightning.pytorch.trainer.states import TrainerFn

from nrt_lightning.errors import InputError

CALLBACKS: dict[type[Callback], str] = {
    BaseFinetuning: "freezes weights before the policy's are read. Set policy.adapter, for instance to LoRA, which "
    "freezes the base.",
    BatchSizeFinder: "tries batch sizes with training steps of its own, and traces differ in length from step to step. "
    "Set model.max_tokens_per_micro_batch, for which `nrt-lightning plan` gives a number.",
    LearningRateFinder: "takes training steps of its own on a module with an `lr`, and rewards do not follow the "
    "learning rate within a few steps. Set model.optimizer.lr, and compare short runs with `nrt-lightning compare`.",
    ModelPruning: "prunes weights before the policy's are read, and puts others in their place. Prune a saved model, "
    "and set policy.model to its directory.",
    StochasticWeightAveraging: "copies the weights before the policy's are read, so it would average nothing. Use "
    "EMAWeightAveraging.",
}
STRATEGIES: dict[type[Strategy], str] = {
    DeepSpeedStrategy: "under which traces cannot be sampled. Use ModelParallelStrategy with tensor_parallel_size 1, "
    "FSDPStrategy, or ddp.",
    SingleDeviceXLAStrategy: "and sampling needs shapes that change from step to step, which TPUs compile anew. Use a "
    "GPU or the CPU.",
    XLAStrategy: "and sampling needs shapes that change from step to step, which TPUs compile anew. Use GPUs or the "
    "CPU.",
}
COPIES = (
    "trains copies of the module in processes of its own, and leaves this one untrained, because it has no weights yet "
    "when theirs are sent back. Use ddp in a script, and devices=1 in a notebook."
)
COMPILED = (
    "The module is one of torch.compile, which compiles its training step anew for the shapes of every batch. Give the "
    "module itself."
)
XLA_PROFILER = "trainer.profiler is XLAProfiler, for TPUs. Use SimpleProfiler, AdvancedProfiler or PyTorchProfiler."


def check_parts(trainer: Any) -> None:
    """Refuse parts of Lightning that cannot work, before any weights are read.

    Raises:
        InputError: names the part, the reason, and what to use instead.
    """
    check_supported(trainer.strategy)
    check_sizes(trainer)
    if isinstance(trainer.profiler, XLAProfiler):
        raise InputError(XLA_PROFILER)
    if trainer.state.fn != TrainerFn.FITTING:
        return
    for callback in trainer.callbacks:
        for kind, reason in CALLBACKS.items():
            if isinstance(callback, kind):
                raise InputError(f"trainer.callbacks has {type(callback).__name__}, which {reason}")
    check_launcher(trainer.strategy)
    if getattr(trainer.lightning_module, "_compiler_ctx", None) is not None:
        raise InputError(COMPILED)


def check_supported(strategy: Strategy) -> None:
    """Refuse strategies that cannot sample.

    Raises:
        InputError: names the strategy, the reason, and what to use instead.
    """
    for kind, reason in STRATEGIES.items():
        if isinstance(strategy, kind):
            raise InputError(f"trainer.strategy is {type(strategy).__name__}, {reason}")


def check_sizes(trainer: Any) -> None:
    """Check that FSDP2 shards over all processes, before they are started.

    Raises:
        InputError: names the sizes that are right.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, ModelParallelStrategy):
        return
    nodes, devices = trainer.num_nodes, trainer.num_devices
    data = nodes if strategy._data_parallel_size == "auto" else strategy._data_parallel_size
    tensor = devices if strategy._tensor_parallel_size == "auto" else strategy._tensor_parallel_size
    if (data, tensor) != (nodes * devices, 1):
        raise InputError(
            f"trainer.strategy ModelParallelStrategy has data_parallel_size {data} and tensor_parallel_size {tensor} "
            "(`auto` is the number of nodes, and of devices of a node), but the policy is sharded over all processes. "
            f"Set data_parallel_size to {nodes * devices} and tensor_parallel_size to 1, or change trainer.devices."
        )


def check_launcher(strategy: Any) -> None:
    """Refuse strategies that train a copy of the module.

    Raises:
        InputError: names the strategy, the reason, and what to use instead.
    """
    method = getattr(strategy, "_start_method", "popen")
    if method != "popen":
        names = {"fork": "ddp_fork or ddp_notebook", "spawn": "ddp_spawn"}
        raise InputError(f"trainer.strategy is {names.get(method, method)}, which {COPIES}")


def check_one_dataloader(trainer: Any) -> None:
    """Refuse several dataloaders of validation or test, as soon as they are known.

    Raises:
        InputError: there are several, whose figures would be one.
    """
    if trainer.predicting:
        return
    loop, name = trainer._evaluation_loop, "test" if trainer.testing else "validate"
    given = loop._data_source.instance if loop._combined_loader is None else loop._combined_loader.flattened
    if not isinstance(given, list | tuple | dict) or len(given) < 2:
        return
    raise InputError(
        f"There are {len(given)} dataloaders for `{name}`, and their figures would be one. Give a single one, and call "
        f"`trainer.{name}` with each of the others."
    )
