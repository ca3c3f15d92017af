"""Steps on a GPU under a memory cap: QLoRA of the Llama-3.1-8B shape, LoRA and all weights of 1B and 3B.

    python -m benchmarks.gpu_memory [--runs 8B-qlora 1B-lora] [--cap 24] [--fsdp] [--json FILE]

K 8, prompts of 256 tokens, traces of 512, answers of 256; random weights. Each run is two steps of `NRTModule` under
Lightning's Trainer, of which the second is measured: rollout, forward, backward and optimizer. The process may use
`--cap` GiB of the GPU. The plan of `nrt-lightning plan` is printed with the measurement. `--fsdp` runs the step under
FSDP with one process. Without a GPU it prints a message and exits with code 0; `--runs tiny-qlora --device cpu` runs a
small version on a CPU.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from benchmarks.gpu import LENGTHS, SHAPES, report
from benchmarks.workload import Workload, build_tokenizer, llama_config, prompts
from nrt_lightning import FourBit, LoRA, NRTModule, Policy
from nrt_lightning.tools.planning.plan import Machine, Plan, make_plan
from nrt_lightning.tools.planning.sizes import Lengths
from nrt_lightning.tools.planning.sketch import Sketch

GIB = 2**30
BIG = Workload(**LENGTHS, vocabulary=128256, hidden=4096, intermediate=14336, layers=32, heads=32, kv_heads=8)
MODELS = SHAPES | {"8B": BIG}
WAYS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"adapter": LoRA()},
    "qlora": {"adapter": LoRA(), "quantization": FourBit()},
}
RUNS = ["8B-qlora", "1B-lora", "3B-lora", "1B-full", "3B-full"]
KEPT = ("1B-lora", "tiny-qlora")  # fit without activation checkpointing


@dataclass
class Meter(L.Callback):
    """Seconds of the rollout and of the rest of the last step."""

    device: torch.device
    rollout: float = 0.0
    learning: float = 0.0
    started: float = 0.0

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def on_train_epoch_start(self, *args: Any) -> None:
        self.started = self.now()

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        now = self.now()
        self.rollout = float(trainer.callback_metrics["rollout/seconds"])
        self.learning = now - self.started - self.rollout
        self.started = now


def settings(name: str, directory: str, device: torch.device) -> tuple[Workload, dict[str, Any]]:
    """The workload of a run and its policy's settings; writes the policy's files."""
    shape, way = name.split("-")
    work = MODELS[shape]
    llama_config(work).save_pretrained(directory)
    build_tokenizer(work.vocabulary).save_pretrained(directory)
    dtype = "bfloat16" if device.type == "cuda" else "float32"
    recompute = name not in KEPT
    common = {"model": directory, "weights": "random", "dtype": dtype, "activation_checkpointing": recompute}
    return work, common | WAYS[way]


def planned(work: Workload, policy: dict[str, Any], module: dict[str, Any], machine: Machine) -> Plan:
    lengths = Lengths(work.prompts, work.group_size, work.prompt_tokens[0], work.trace_tokens, work.answer_tokens[0])
    return make_plan(NRTModule(Sketch(**policy), **module), lengths, 1, machine)


def measure(name: str, device: torch.device, *, fsdp: bool) -> dict[str, float]:
    """Peak memory and tokens per second of a run."""
    with tempfile.TemporaryDirectory() as directory:
        work, policy = settings(name, directory, device)
        budget = sum(work.prompt_tokens[:1]) + (work.group_size + 1) * (work.trace_tokens + work.answer_tokens[0] + 1)
        given = {"sampling": work.sampling, "max_tokens_per_micro_batch": budget}
        plan = planned(work, policy, given, Machine(gpu=device.type == "cuda"))
        with device:
            module = NRTModule(Policy(**policy).load(), **given)
    forget(device)  # loading needs unquantized weights, which is not part of a step
    meter = Meter(device)
    trainer = L.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        strategy="fsdp" if fsdp else "auto",
        max_steps=2,
        callbacks=[meter],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader([prompts(work, step) for step in range(2)], batch_size=None))
    tokens = sum(work.prompt_tokens) + work.rollouts * (work.trace_tokens + work.answer_tokens[0] + 1)
    peak = torch.cuda.max_memory_allocated(device) / GIB if device.type == "cuda" else 0.0
    return {
        "peak, GiB": peak,
        "planned, GiB": plan.totals[plan.peak] / GIB,
        "rollout tokens/s": work.rollouts * work.trace_tokens / meter.rollout,
        "learning tokens/s": tokens / meter.learning,
        "step, s": meter.rollout + meter.learning,
    }


def forget(device: torch.device) -> None:
    """Free unused memory and reset the peak."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.gpu_memory", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", nargs="+", default=RUNS, metavar="MODEL-WAY", help="(%(default)s)")
    parser.add_argument("--cap", type=float, default=24.0, help="GiB that the process may use; 0 for no cap")
    parser.add_argument("--fsdp", action="store_true", help="under FSDP with one process")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path, help="file for the measurements")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("benchmarks.gpu_memory: skipped, no CUDA device found.")
        return
    if device.type == "cuda" and options.cap:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, options.cap * GIB / total))
    results: dict[str, dict[str, float]] = {}
    for name in options.runs:
        try:
            results[name] = measure(name, device, fsdp=options.fsdp)
            report(results, options.json)
        except torch.cuda.OutOfMemoryError as error:
            print(f"{name}: does not fit into {options.cap:g} GiB ({str(error).splitlines()[0]})")
        forget(device)


if __name__ == "__main__":
    main()
