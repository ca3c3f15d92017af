"""Short runs of the quickstart in one or several processes. As a script, runs the descriptions in its argument."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import lightning as L
import lightning.pytorch.strategies.fsdp
import torch
import torch.distributed as dist
from forked import run_forked
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from short_runs import fast, nrt_module, registers
from tiny import ANSWERS, QUESTIONS, make_prompts
from torch.distributed.fsdp import FullStateDictConfig, FullyShardedDataParallel, StateDictType
from torch.distributed.fsdp.api import FullOptimStateDictConfig

import nrt_lightning.models.sharding.base
from nrt_lightning import (
    AdapterDisabledReference,
    CollapseDetector,
    ConstantSchedule,
    EMAReference,
    FourBit,
    FrozenReference,
    InitialBaseline,
    InputError,
    LoRA,
    NRTLoss,
    Policy,
    RegisterPrograms,
    RestoreCheckpoint,
    Sampling,
    TransformersEngine,
    VLLMServerEngine,
    export_policy,
)
from nrt_lightning.callbacks.collapse.vitals import Vitals
from nrt_lightning.functional import TokenMean
from nrt_lightning.rollouts import GenerationRequest

ROWS = 4  # prompts a step, in all processes together
NOISY = ("seconds", "tokens_per_second", "memory")


class OnAnyDevice(FSDPStrategy):
    """FSDPStrategy itself is refused on CPUs by the trainer, by its type alone."""


def whole_state(module: torch.nn.Module, world_size: int, rank0_only: bool = True) -> Any:
    """As Lightning's context of this kind, but for `offload_to_cpu`, under which torch takes a tensor that is on the
    CPU already for a copy, and frees or overwrites it."""
    return FullyShardedDataParallel.state_dict_type(
        module,
        StateDictType.FULL_STATE_DICT,
        FullStateDictConfig(offload_to_cpu=False, rank0_only=rank0_only),
        FullOptimStateDictConfig(offload_to_cpu=False, rank0_only=rank0_only),
    )


lightning.pytorch.strategies.fsdp._get_full_state_dict_context = whole_state


class Notes(L.Callback):
    """Records every step, and saves a checkpoint after the first if it has a path."""

    def __init__(self, save: str | None) -> None:
        self.save = save
        self.steps: list[dict[str, Any]] = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if self.save and batch_idx == 0:
            trainer.save_checkpoint(self.save, weights_only=False)
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(("train/", "rollout/"))}
        kept = {k: v for k, v in metrics.items() if not k.endswith(NOISY) and "memory" not in k}
        rollouts = batch.rollouts
        texts = [ids[mask].tolist() for ids, mask in zip(rollouts.completion_ids, rollouts.segments.completion_mask)]
        kept["tokens"] = trainer.strategy.reduce(torch.tensor(float(sum(map(sum, texts)))), reduce_op="sum").item()
        self.steps.append(kept)


REFERENCES = {
    "ema": lambda: EMAReference(update_rate=0.5, every_n_steps=1),
    "frozen": FrozenReference,
    "adapter": AdapterDisabledReference,
}


def strategy(kind: str, processes: int, directory: bool) -> Any:
    """Strategies by name; checkpoints are a directory with a file per process, or one file."""
    if kind == "fsdp2":
        return ModelParallelStrategy(processes, 1, save_distributed_checkpoint=directory)
    if kind == "auto_sizes":
        return ModelParallelStrategy()
    if kind == "fsdp1_checkpointing":
        return OnAnyDevice(activation_checkpointing_policy={torch.nn.Linear})
    return OnAnyDevice(state_dict_type="sharded" if directory else "full") if kind == "fsdp1" else kind


def in_step_two(now: Vitals, past: list[Vitals]) -> str | None:
    """A sign of collapse."""
    return "it is the second step" if now.step == 2 else None


def module_of(spec: dict[str, Any]) -> Any:
    """The module of a description."""
    settings: dict[str, Any] = {}
    if spec.get("loss") == "token_mean":
        settings["loss"] = NRTLoss(reduction=TokenMean())
    if spec.get("reference"):
        settings |= {"loss": NRTLoss(kl_coef=0.1), "reference": REFERENCES[spec["reference"]]()}
    if spec.get("initial"):
        settings["baseline_scorer"] = InitialBaseline()
    if spec.get("server"):
        settings["engine"] = VLLMServerEngine([spec["server"]])
    adapter = (
        LoRA(rank=4, dtype=spec.get("adapter_dtype", "float32")) if spec.get("lora") or spec.get("quantized") else None
    )
    quantization = FourBit() if spec.get("quantized") else None
    policy = Policy("embedded:registers-base", adapter=adapter, quantization=quantization, **spec.get("policy", {}))
    sampling = Sampling(group_size=4, max_trace_tokens=10)
    return nrt_module(policy=policy, sampling=sampling, optimizer=fast, schedule=ConstantSchedule(0), **settings)


def run(kind: str, processes: int, place: Path, **spec: Any) -> dict[str, Any]:
    """Run one description. The report is the same in all processes.

    Args:
        kind: of strategy: auto, ddp, fsdp2, fsdp1, auto_sizes, fsdp1_checkpointing.
        processes: devices.
        place: directory of the run.
        spec: lora, adapter_dtype, quantized, policy, reference, loss, initial, server, watched, window, precision,
            steps, rows, free, resume, save, directory, export, predict, weights_alone: neither validate nor write.
    """
    L.seed_everything(7)
    notes = Notes(spec.get("save"))
    watch = CollapseDetector(1, 1, signs=[in_step_two], actions=[RestoreCheckpoint()])
    callbacks = [notes, watch] if spec.get("watched") else [notes]
    trainer = L.Trainer(
        accelerator="cpu", devices=processes, strategy=strategy(kind, processes, spec.get("directory", False)),
        logger=False, max_steps=spec.get("steps", 2), max_epochs=-1, callbacks=callbacks, default_root_dir=place,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        gradient_clip_val=0.5, precision=spec.get("precision", "32-true"), val_check_interval=2,
        limit_val_batches=0 if spec.get("weights_alone") else 1.0,
    )  # fmt: skip
    module, each = module_of(spec), spec.get("rows", ROWS) // processes
    rows = {"train": RegisterPrograms("train", 24), "val": RegisterPrograms("validation", 6), "test": None}
    rows["predict"] = RegisterPrograms("test", 3)  # two batches for one process, one for the other
    data = registers(batch_size=each, eval_batch_size=each, window=spec.get("window", 1), **rows)
    nrt_lightning.models.sharding.base.free_memory = lambda device: spec.get("free")
    trainer.fit(module, data, ckpt_path=spec.get("resume"))
    nrt_lightning.models.sharding.base.free_memory = lambda device: None
    policy = module.policy
    if spec.get("export"):
        export_policy(policy, spec["export"])
    written = [] if spec.get("weights_alone") else greedy(policy, trainer.global_rank if processes > 1 else None)
    validated = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
    predicted = trainer.predict(module, data) if spec.get("predict") else []
    with policy.gathered():
        named = policy.named_parameters()
        norms = {n.replace("_fsdp_wrapped_module.", ""): float(p.detach().double().norm()) for n, p in named}
    return {
        "steps": notes.steps,
        "weights": norms,
        "val": validated,
        "held": sum(local(p).numel() for p in policy.parameters()),
        "greedy": written,
        "predicted": together([row for batch in predicted for row in batch], processes),
    }


def greedy(policy: Policy, rank: int | None) -> list[list[list[int]]]:
    """Greedy texts of two processes with different questions and lengths; of both for None."""
    prompts, texts = make_prompts(policy, QUESTIONS, ANSWERS), []
    for number in (0, 1) if rank is None else (rank % 2,):
        ids, mask = prompts.prompt_ids[number : number + 2], prompts.prompt_mask[number : number + 2]
        request = GenerationRequest(ids, mask, 4 + 8 * number, [policy.markup.marker_ids[0]], temperature=0.0)
        out = TransformersEngine().generate(policy, request)
        texts.append([row[kept].tolist() for row, kept in zip(out.token_ids, out.token_mask)])
    return texts if rank is None else together(texts, 2)[:2]


def together(items: list[Any], processes: int) -> list[Any]:
    """The items of all processes."""
    if processes == 1:
        return items
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, items)
    return [item for items in everyone for item in items]


def local(parameter: torch.Tensor) -> torch.Tensor:
    """The local shard of a parameter."""
    return getattr(parameter, "_local_tensor", parameter)


def in_processes(place: Path, *specs: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Run descriptions one after another in the same processes; results by name."""
    (place / "specs.json").write_text(json.dumps(specs))
    run_forked(__file__, place, processes=specs[0]["processes"])
    return json.loads((place / "found.json").read_text())


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    found: dict[str, Any] = {}
    for described in json.loads((folder / "specs.json").read_text()):
        name, refused = described.pop("name"), described.pop("refused", False)
        try:
            found[name] = run(place=folder / name, **described)
        except InputError as error:
            if not refused:
                raise
            found[name] = {"error": str(error)}
    if dist.get_rank() == 0:
        (folder / "found.json").write_text(json.dumps(found))
