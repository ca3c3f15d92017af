"""Prompts read once by a model whose weights are sharded over two processes (FSDP2): the same gradients."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, os, sys
sys.path[:0] = [{root!r}, {tests!r}]
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from tiny import sampled
from nrt_lightning import PackedGroups, Policy, PromptCopies, PromptTree, SharedPrompt

def gradients(policy, rollouts, scoring):
    policy.zero_grad()
    scores = scoring(policy.network, rollouts, baseline=True)
    scores.logprobs.sum().backward()
    whole = lambda grad: grad.full_tensor() if hasattr(grad, "full_tensor") else grad
    return scores, {{name: whole(p.grad).clone() for name, p in policy.named_parameters()}}

def work(rank, file):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="{port}", RANK=str(rank), WORLD_SIZE="2")
    dist.init_process_group("gloo", rank=rank, world_size=2)
    policy = Policy(sys.argv[1]).load()
    rollouts = sampled(policy)
    expected, expected_grads = gradients(policy, rollouts, PromptCopies())
    mesh, worst = init_device_mesh("cpu", (2,)), {{}}
    for layer in policy.network.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(policy.network, mesh=mesh)
    for scoring in (PackedGroups(), SharedPrompt(), PromptTree(), PromptCopies()):
        scores, grads = gradients(policy, rollouts, scoring)
        error = max(float((grads[n] - g).norm() / (g.norm() + 1e-9)) for n, g in expected_grads.items())
        gap = float((scores.logprobs - expected.logprobs).abs().max())
        worst[type(scoring).__name__] = [error, gap]
    if rank == 0:
        json.dump(worst, open(file, "w"))
    dist.destroy_process_group()

if __name__ == "__main__":
    mp.spawn(work, args=(sys.argv[2],), nprocs=2)
"""


def test_sharded_gradients_are_those_of_whole_weights(llama_dir, tmp_path):
    """Every process scores the same rollouts, and FSDP2 averages over processes: the gradient is that of one."""
    tests = Path(__file__).parents[2]
    script, file = tmp_path / "run.py", tmp_path / "worst.json"
    script.write_text(SCRIPT.format(root=str(tests.parent), tests=str(tests), port=29731))
    out = subprocess.run(
        [sys.executable, str(script), llama_dir, str(file)], capture_output=True, text=True, timeout=300
    )
    assert out.returncode == 0, out.stderr[-3000:]
    worst = json.loads(file.read_text())
    assert set(worst) == {"PackedGroups", "SharedPrompt", "PromptTree", "PromptCopies"}
    for name, (error, gap) in worst.items():
        assert error < 1e-5, name
        assert gap == pytest.approx(0, abs=3e-5), name
