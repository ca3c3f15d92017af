"""Weights read to be sharded: no process holds a copy of its own of all of them."""

import torch
from forked import run_forked
from tiny import BASE
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

SCRIPT = """
import os, sys
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from nrt_lightning import Policy
from nrt_lightning.models.sharding.fsdp2 import FSDP2Sharding

def own_memory():  # MiB that no other process shares
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines["RssAnon"].split()[0]) / 1024

def work(rank, where):
    dist.init_process_group("gloo", init_method=f"file://{where}/store", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    Policy("embedded:registers-base").load(FSDP2Sharding(mesh))  # what is imported and set up once is not counted
    policy, before = Policy(where), own_memory()
    policy.load(FSDP2Sharding(mesh))
    (policy.network.model.norm.weight.full_tensor() == 1).all()
    print(f"rank {rank} holds {own_memory() - before:.0f}", flush=True)
    dist.destroy_process_group()

if __name__ == "__main__":
    work(int(os.environ["RANK"]), sys.argv[1])
"""


def test_a_process_holds_its_share_and_little_more(tmp_path):
    """A file of 64 MiB in bfloat16 for weights of 128 MiB in float32: 64 in each process, and 64 more for a copy."""
    shape = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8, "num_attention_heads": 4}
    config = LlamaConfig(**shape, vocab_size=72, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.to_empty(device="cpu").save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(BASE).save_pretrained(tmp_path)
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    printed = run_forked(script, tmp_path)
    held = [int(line.split()[-1]) for text in printed for line in text.splitlines() if "holds" in line]
    assert len(held) == 2
    assert all(60 < mebibytes < 125 for mebibytes in held), held
