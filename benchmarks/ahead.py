"""Time that sampling one window ahead saves when traces come from a slow server.

The server is simulated by an engine that samples with a copy of the weights and then sleeps until a given time has
passed. `python -m benchmarks.ahead --seconds 1` prints seconds per step, as medians of alternating runs.
"""

from __future__ import annotations

import argparse
import copy
import logging
import statistics
import time
import warnings
from typing import Any

import lightning as L
import torch
from typing_extensions import override

from nrt_lightning import (
    AheadRollout,
    NRTLoss,
    NRTModule,
    OnPolicyRollout,
    PlainTemplate,
    Policy,
    QADataModule,
    RegisterPrograms,
    RolloutEngine,
    Sampling,
    TransformersEngine,
    TruncatedImportance,
)
from nrt_lightning.rollouts import GenerationRequest, Generations, Progress

ROWS, TRACE = 16, 32  # prompts per step and tokens per trace, as in the quickstart


class SlowServer(RolloutEngine):
    """Returns when `seconds` have passed, or at once if sampling took longer."""

    own_weights = True

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.policy: Policy | None = None

    @override
    def send(self, policy: Policy) -> None:
        self.policy = copy.deepcopy(policy)

    @override
    def generate(self, policy: Policy, request: GenerationRequest, progress: Progress | None = None) -> Generations:
        started = time.perf_counter()
        found = TransformersEngine().generate(self.policy or policy, request, progress)
        time.sleep(max(0.0, self.seconds - (time.perf_counter() - started)))
        return found


class Clock(L.Callback):
    """Seconds between the ends of steps, without the first two, which wait for the first window."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *args: Any) -> None:
        """Store the time."""
        self.ends.append(time.perf_counter())

    @property
    def step(self) -> float:
        """Median seconds per step."""
        return statistics.median(b - a for a, b in zip(self.ends[1:], self.ends[2:], strict=False))


def run(rollout: OnPolicyRollout, engine: RolloutEngine, steps: int) -> tuple[float, float]:
    """Seconds and CPU seconds per step."""
    L.seed_everything(0)
    module = NRTModule(
        Policy("embedded:registers-base"),
        loss=NRTLoss(sampler_correction=TruncatedImportance()),
        sampling=Sampling(group_size=8, max_trace_tokens=TRACE, suppress_eos=True),
        engine=engine,
    )
    rows = RegisterPrograms("train", ROWS * (steps + 2))
    data = QADataModule(train=rows, batch_size=ROWS, template=PlainTemplate(), max_prompt_tokens=64)
    clock = Clock()
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_steps=steps, logger=False, callbacks=[rollout, clock],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    began = time.process_time()
    trainer.fit(module, data)
    return clock.step, (time.process_time() - began) / steps


def main() -> None:
    """Compare the two in alternating runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="server time per window; 0 samples in this process")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(args.threads)
    found: dict[str, list[tuple[float, float]]] = {"in turn": [], "one window ahead": []}
    for _ in range(args.pairs):
        for name, kind in (("in turn", OnPolicyRollout), ("one window ahead", AheadRollout)):
            engine = SlowServer(args.seconds) if args.seconds else TransformersEngine()
            found[name].append(run(kind(progress=False), engine, args.steps))
    for name, pairs in found.items():
        wall, cpu = (statistics.median(values) for values in zip(*pairs, strict=True))
        print(f"{name}: {wall:.2f} s a step, {cpu:.2f} CPU s")


if __name__ == "__main__":
    main()
