"""Every part that Lightning has, found in its packages, and what was found of it: the table of docs/lightning.md."""

from __future__ import annotations

import inspect
import pkgutil
from dataclasses import dataclass
from importlib import import_module

from lightning.fabric.loggers import Logger as FabricLogger
from lightning.pytorch import Callback, callbacks, loggers, profilers, strategies
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy, StrategyRegistry

from nrt_lightning.strategies import refused

KINDS = {
    "callback": (callbacks, Callback), "logger": (loggers, FabricLogger), "profiler": (profilers, Profiler),
    "strategy": (strategies, Strategy),
}  # fmt: skip
BASES = {"Callback", "Checkpoint", "ProgressBar", "Logger", "Profiler", "Strategy", "ParallelStrategy"}
NOT_PARTS = {"DummyLogger"}  # of `fast_dev_run`


@dataclass(frozen=True)
class Part:
    """A class of Lightning."""

    kind: str
    cls: type

    @property
    def name(self) -> str:
        return self.cls.__name__


def parts() -> dict[str, Part]:
    """All parts by name."""
    found = {}
    for kind, (package, base) in KINDS.items():
        inside = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        modules = [package, *(import_module(module.name) for module in inside)]
        classes = [cls for module in modules for _, cls in inspect.getmembers(module, inspect.isclass)]
        for cls in classes:
            named = cls.__name__ == "NeptuneLogger" or issubclass(cls, base)
            own = cls.__module__.startswith("lightning.pytorch") and "_graveyard" not in cls.__module__
            if named and own and not cls.__name__.startswith("_"):
                found[cls.__name__] = Part(kind, cls)
    return {name: part for name, part in sorted(found.items()) if name not in BASES | NOT_PARTS}


def strategy_names() -> dict[str, type]:
    """The names that `trainer.strategy` takes, with their classes."""
    return {name: StrategyRegistry[name]["strategy"] for name in StrategyRegistry.available_strategies()}


WORKS = {
    "BasePredictionWriter": "a subclass gets the predictions of every batch",
    "DeviceStatsMonitor": "logs the statistics of the device",
    "EarlyStopping": "stops by a metric that is logged",
    "GradientAccumulationScheduler": "accumulates micro-batches from an epoch on; `data.window` must fit all of them",
    "LambdaCallback": "its functions are called",
    "LearningRateMonitor": "logs the learning rate",
    "ModelCheckpoint": "keeps checkpoints; those that fall due inside a window wait for its end",
    "ModelSummary": "shows the layers",
    "OnExceptionCheckpoint": "saves when the run fails",
    "RichModelSummary": "shows the layers",
    "RichProgressBar": "shows the progress",
    "SpikeDetection": "sees the loss of every micro-batch",
    "ThroughputMonitor": "logs batches and samples per second",
    "Timer": "stops the run in time",
    "TQDMProgressBar": "shows the progress",
    "WeightAveraging": "averages the weights after every step",
    "EMAWeightAveraging": "averages the weights after every step, the newest the most",
    "CSVLogger": "gets all metrics; a resumed run adds to the file",
    "TensorBoardLogger": "gets all metrics",
    "CometLogger": "gets all metrics (tried with a stand-in of the service)",
    "LitLogger": "gets all metrics (tried with a stand-in of the service)",
    "MLFlowLogger": "gets all metrics (tried with a stand-in of the service)",
    "WandbLogger": "gets all metrics (tried with a stand-in of the service)",
    "AdvancedProfiler": "profiles the run",
    "PassThroughProfiler": "Lightning's default",
    "PyTorchProfiler": "profiles the run",
    "SimpleProfiler": "profiles the run",
    "SingleDeviceStrategy": "Lightning's default for one device",
}
ELSEWHERE = {  # tried in tests of their own, with several processes
    "DDPStrategy": ("equals one process", "tests/modules/test_distributed.py", '"ddp"'),
    "FSDPStrategy": ("shards the weights: [sharding](sharding.md)", "tests/strategies/runs.py", "FSDPStrategy"),
    "ModelParallelStrategy": (
        "shards the weights, with `tensor_parallel_size: 1`: [sharding](sharding.md)", "tests/strategies/runs.py",
        "ModelParallelStrategy",
    ),
}  # fmt: skip
BY_LIGHTNING = {"NeptuneLogger": "refused by Lightning: the service has ended"}
REFUSED = {
    "BackboneFinetuning": refused.CALLBACKS[callbacks.BaseFinetuning],
    "XLAProfiler": "is for TPUs. Use SimpleProfiler, AdvancedProfiler or PyTorchProfiler.",
    **{cls.__name__: reason for cls, reason in [*refused.CALLBACKS.items(), *refused.STRATEGIES.items()]},
}


def verdict(name: str) -> str:
    """What is known of a part."""
    if name in REFUSED:
        reason = REFUSED[name]
        for first, instead in (("under which ", "under it, "), ("and ", ""), ("", "it ")):
            if reason.startswith(first):
                return f"refused: {instead}{reason.removeprefix(first)}"
    return WORKS.get(name) or BY_LIGHTNING.get(name) or ELSEWHERE[name][0]


def table() -> str:
    """The table of the docs."""
    lines = ["| part | |", "|---|---|"]
    for kind, (package, _) in KINDS.items():
        where = package.__name__.rpartition(".")[2]
        lines += [f"| `{where}.{name}` | {verdict(name)} |" for name, part in parts().items() if part.kind == kind]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
