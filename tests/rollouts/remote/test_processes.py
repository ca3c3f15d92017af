"""Two processes, sharded or not, with one server between them."""

from __future__ import annotations

import json

import torch
from fake_vllm import FakeVLLM, listening
from forked import run_forked

from nrt_lightning import Policy, TransformersEngine

SCRIPT = """
import json, os
import torch, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from rollouts.vllm.test_vllm_server_engine import moved, request_of
from nrt_lightning import InputError, Policy, VLLMServerEngine
from nrt_lightning.models.sharding.fsdp2 import FSDP2Sharding

rank = int(os.environ["RANK"])
dist.init_process_group("gloo", init_method="file://{out}/meeting", rank=rank, world_size=2)
policy = Policy("embedded:registers-base").load().eval()
engine, seen = VLLMServerEngine([{url!r}], directory={out!r}), {{}}
moved(policy)
engine.send(policy)
text = ("a4b*2c+2d+3?dc:", "b*2c+1?c:")[rank]
greedy = request_of(policy, (text,), temperature=0.0)
seen["tokens"] = engine.generate(policy, greedy).token_ids.tolist()
policy.load(FSDP2Sharding(init_device_mesh("cpu", (2,))))
with torch.no_grad():
    for parameter in policy.parameters():
        parameter.mul_(0.5)
engine.send(policy)
seen["version"], seen["name"] = engine.version, engine.current[0]
engine.servers[0].patience = 0.1
engine.send(policy)  # unchanged
if rank == 0:  # a change that the other process cannot see
    next(policy.parameters()).data.to_local().add_(1.0)
dist.barrier()
if rank == 0:
    engine.new_version = lambda version: (_ for _ in ()).throw(InputError("the disk is full"))
try:
    engine.send(policy)
except InputError as error:
    seen["error"] = str(error)
print("SEEN", json.dumps(seen), flush=True)
dist.barrier()
dist.destroy_process_group()
"""


def test_one_process_hands_over_the_whole_weights_for_all(tmp_path):
    fake = FakeVLLM("embedded:registers-base")
    with listening(fake) as url:
        script = tmp_path / "run.py"
        script.write_text(SCRIPT.format(out=str(tmp_path), url=url))
        outs = run_forked(script)
    seen = [json.loads(out.partition("SEEN ")[2].splitlines()[0]) for out in outs]
    assert fake.orders.count("/collective_rpc") == 2
    assert seen[0]["version"] == seen[1]["version"] == 1
    assert seen[0]["name"] == seen[1]["name"] == fake.version
    assert seen[0]["error"] == seen[1]["error"] == "the disk is full"

    from rollouts.vllm.test_vllm_server_engine import moved, request_of

    policy = Policy("embedded:registers-base").load().eval()
    moved(policy)
    for text, run in zip(("a4b*2c+2d+3?dc:", "b*2c+1?c:"), seen):
        expected = TransformersEngine().generate(policy, request_of(policy, (text,), temperature=0.0)).token_ids
        assert run["tokens"] == expected.tolist()
    weights = fake.policy.state_dict()
    assert all(torch.equal(weights[name], 0.5 * weight) for name, weight in policy.state_dict().items())
