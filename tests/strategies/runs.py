"""Short runs of the quickstart in one or several processes; as a script, those that its first argument describes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import lightning as L
import torch
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from short_runs import fast, nrt_module, registers

from nrt_lightning import ConstantSchedule, EMAReference, LoRA, NRTLoss, Policy, RegisterPrograms, Sampling
from nrt_lightning.functional import TokenMean

ROWS = 4  # prompts a step, in all processes together
NOISY = ("seconds", "tokens_per_second", "memory")


class OnAnyDevice(FSDPStrategy):
    """FSDPStrategy itself is refused on CPUs by the trainer, by its type alone."""


class Notes(L.Callback):
    """What every step was; a checkpoint after the first, if it is given a place."""

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


def strategy(kind: str, processes: int, directory: bool) -> Any:
    """By name; checkpoints are a directory with a file for each process, or one file."""
    if kind == "fsdp2":
        return ModelParallelStrategy(processes, 1, save_distributed_checkpoint=directory)
    return OnAnyDevice(state_dict_type="sharded" if directory else "full") if kind == "fsdp1" else kind


def run(kind: str, processes: int, place: Path, **spec: Any) -> dict[str, Any]:
    """One run; what it reports is the same in all processes.

    Args:
        kind: of strategy: auto, ddp, fsdp2, fsdp1.
        processes: devices.
        place: directory of the run.
        spec: lora, reference, loss, window, precision, clip, steps, resume, save, directory, policy, export.
    """
    L.seed_everything(7)
    notes = Notes(spec.get("save"))
    trainer = L.Trainer(
        accelerator="cpu", devices=processes, strategy=strategy(kind, processes, spec.get("directory", False)),
        logger=False, max_steps=spec.get("steps", 2), max_epochs=-1, callbacks=[notes], default_root_dir=place,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        gradient_clip_val=spec.get("clip", 0.5), precision=spec.get("precision", "32-true"), val_check_interval=2,
    )  # fmt: skip
    settings = {"loss": NRTLoss(kl_coef=0.1)} if spec.get("reference") else {}
    if spec.get("reference"):
        settings["reference"] = EMAReference(update_rate=0.5, every_n_steps=1)
    if spec.get("loss") == "token_mean":
        settings["loss"] = NRTLoss(reduction=TokenMean())
    adapter = LoRA(rank=4) if spec.get("lora") else None
    policy = Policy(spec.get("model", "embedded:registers-base"), adapter=adapter, **spec.get("policy", {}))
    sampling = Sampling(group_size=4, max_trace_tokens=10)
    module = nrt_module(policy=policy, sampling=sampling, optimizer=fast, schedule=ConstantSchedule(0), **settings)
    each = ROWS // processes
    rows = {"train": RegisterPrograms("train", 24), "val": RegisterPrograms("validation", 6), "test": None}
    data = registers(batch_size=each, eval_batch_size=each, window=spec.get("window", 1), **rows)
    trainer.fit(module, data, ckpt_path=spec.get("resume"))
    if spec.get("export"):
        from nrt_lightning import WholeModel, export_policy

        export_policy(policy, spec["export"], None if adapter else WholeModel(), overwrite=True)
    with policy.gathered():
        named = policy.named_parameters()
        norms = {n.replace("_fsdp_wrapped_module.", ""): float(p.detach().double().norm()) for n, p in named}
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
    held = sum(p.numel() if kind == "fsdp1" else local(p).numel() for p in policy.parameters())
    return {"steps": notes.steps, "weights": norms, "val": metrics, "held": held, "rank": trainer.global_rank}


def local(parameter: torch.Tensor) -> torch.Tensor:
    """What of a parameter this process holds."""
    return getattr(parameter, "_local_tensor", parameter)


def in_processes(place: Path, *specs: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The runs of these descriptions, one after another in one start of the processes; by name."""
    (place / "specs.json").write_text(json.dumps(specs))
    out = subprocess.run([sys.executable, __file__, str(place)], capture_output=True, text=True, timeout=1200)
    assert out.returncode == 0, out.stdout[-1000:] + out.stderr[-4000:]
    return json.loads((place / "found.json").read_text())


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    found = {}
    for described in json.loads((folder / "specs.json").read_text()):
        name = described.pop("name")
        found[name] = run(place=folder / name, **described)
    if found[name]["rank"] == 0:
        (folder / "found.json").write_text(json.dumps(found))
