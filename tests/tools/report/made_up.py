"""Folders of runs that were made up, in the formats that runs write."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

from nrt_lightning.callbacks.samples.records import NO_TRACE

CHATTER = "my friend liked this one , maybe ask me later ok bye"
WORK = "b 2 c 1 d 3 so e 1 and d 3"
HOSTILE = '</script><img src=x onerror="window.hit=1"><!-- <b>bold</b> & \u2028 ` | \\ "'


def write_lines(path: Path, rows) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def made_up_run(folder: Path, name: str = "nrt", steps: int = 60, hostile: str = "", traces: bool = True) -> Path:
    """A run of so many steps that learns, with a validation every 20 steps."""
    run = folder / "tensorboard" / name
    run.mkdir(parents=True)
    draw = random.Random(0)
    rows = []
    for step in range(1, steps + 1):
        axes = {"step": step, "prompts": 16 * step, "rollouts": 128 * step, "seconds": round(0.4 * step, 1), "epoch": 0}
        part = step / steps
        health = {"rollout/marker_rate": 0.9 + 0.1 * part, "rollout/trace_tokens": 14 + draw.random(),
                  "rollout/trace_entropy": 0.5 - 0.3 * part, "rollout/truncated_share": 0.1 * (1 - part)}  # fmt: skip
        trained = {"train/gain": part + 0.1 * draw.random(), "train/reward": part, "train/grad_norm": 1 - part / 2}
        rows.append(axes | (health | trained if traces else {}) | {"train/loss": 1 - part})
        if step % 20 == 0:
            rows.append(
                axes | {"val/exact_match": 0.9 * part, "val/confidence": 0.6 * part**2, "val/marker_rate": part}
            )
    rows.append(rows[-1] | {"test/exact_match": 0.88, "test/confidence": 0.5})
    write_lines(run / "metrics.jsonl", rows)
    write_lines(run / "samples.jsonl", [s for step in (20, 40, 60) for s in looks(step, hostile, traces)])
    settings = {"model.optimizer.lr": 4e-4, "data.train": "/home/ada/rows.csv", "note": hostile, "name": name}
    facts = {"format": 1, "name": name, "module": "NRTModule" if traces else "SFTModule", "traces": traces,
             "settings": settings, "environment": {"torch": "2.6", "device": "cpu", "processes": 1},
             "started": "2026-11-26T04:00:00+00:00"}  # fmt: skip
    (run / "run.json").write_text(json.dumps(facts))
    (folder / "results.json").write_text(json.dumps({name: {"exact_match": 0.88, "seconds": 40.0}}))
    return run


def looks(step: int, hostile: str, traces: bool):
    """What is seen of four questions, two of them of the training."""
    part = step / 60
    for number in range(4 if traces else 2):  # SFT has no traces of training
        split = "val" if number < 2 else "train"
        tokens = ["e", "1", ",", "d", "3", "</s>"]
        base = [-0.2, -1.8, -0.1, -0.9, -2.0, -0.05]
        kinds = ["greedy"] if split == "val" else ["best", "worst"]
        yield {
            "format": 1, "step": step, "prompts": 16 * step, "rollouts": 128 * step, "seconds": 0.4 * step,
            "split": split, "id": f"{split}:{number}", "question": f"a4b*2c+2d+{number}?ed:{hostile}",
            "reference": f"e1,d3{hostile}", "answer_tokens": tokens, "baseline_logprobs": base if traces else None,
            "baseline_confidence": math.exp(sum(base)) if traces else None,
            "traces": [trace_of(kind, part, base, hostile, traces) for kind in kinds],
        }  # fmt: skip


def trace_of(kind: str, part: float, base, hostile: str, traces: bool):
    better = part * (0.3 if kind == "worst" else 0.95)
    logprobs = [
        round(value * (1 - better) - (0.4 if at == 2 and kind == "worst" else 0), 3) for at, value in enumerate(base)
    ]
    text = (WORK if better > 0.5 else CHATTER) + hostile
    known = {
        "kind": kind, "text": text, "reward": round(1.5 * better, 3), "gain": round(1.5 * better - 0.2, 3),
        "own_answer": "e1,d3" if better > 0.6 else "e4,d0", "own_answer_note": "", "right": better > 0.6,
        "confidence": math.exp(sum(logprobs)), "logprobs": logprobs, "trace_tokens": len(text.split()),
        "marker_emitted": better > 0.3, "cut": better <= 0.3,
    }  # fmt: skip
    return known if traces else known | NO_TRACE
