"""Prompts read once by a model whose weights are sharded over two processes (FSDP2): the same gradients."""

import json

import pytest
from forked import run_forked

SCRIPT = """
import json, os, sys
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from tiny import sampled
from nrt_lightning import PackedGroups, Policy, PromptCopies, PromptTree, SharedPrompt

def gradients(policy, rollouts, scoring):
    policy.zero_grad()
    scores = scoring(policy.network, rollouts, baseline=True)
    scores.logprobs.sum().backward()
    whole = lambda grad: grad.full_tensor() if hasattr(grad, "full_tensor") else grad
    return scores, {name: whole(p.grad).clone() for name, p in policy.named_parameters()}

def work(rank, file):
    dist.init_process_group("gloo", rank=rank, world_size=2)
    policy = Policy(sys.argv[1]).load()
    rollouts = sampled(policy)
    expected, expected_grads = gradients(policy, rollouts, PromptCopies())
    mesh, worst = init_device_mesh("cpu", (2,)), {}
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
    work(int(os.environ["RANK"]), sys.argv[2])
"""


def test_sharded_gradients_are_those_of_whole_weights(llama_dir, tmp_path):
    """Every process scores the same rollouts, and FSDP2 averages over processes: the gradient is that of one."""
    script, file = tmp_path / "run.py", tmp_path / "worst.json"
    script.write_text(SCRIPT)
    run_forked(script, llama_dir, file)
    worst = json.loads(file.read_text())
    assert set(worst) == {"PackedGroups", "SharedPrompt", "PromptTree", "PromptCopies"}
    for name, (error, gap) in worst.items():
        assert error < 1e-5, name
        assert gap == pytest.approx(0, abs=3e-5), name
