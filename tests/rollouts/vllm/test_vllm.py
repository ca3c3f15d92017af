"""Tests with a real vLLM: a server on loopback, and a vLLM in this process. Run by `make test-vllm`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from vllm_environment import ROOT, python_with

from benchmarks.wide_heads import widen
from nrt_lightning import AdapterSync, InputError, LoRA, Policy, TransformersEngine, VLLMServerEngine, WeightsSync
from nrt_lightning.cli.main import run
from nrt_lightning.rollouts import GenerationRequest
from nrt_lightning.rollouts.vllm.serving import ServerProcess, ServerSettings, write_served_model

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(3600)]
TOKEN = "a secret of these tests"
PLAIN = LoRA(rank=8, alpha=16.0, marker_rows=False)
LORA = [
    "--model.policy.init_args.adapter=nrt_lightning.LoRA",
    "--model.policy.init_args.adapter.rank=8",
    "--model.policy.init_args.adapter.alpha=16.0",
    "--model.optimizer.init_args.lr=2.0e-3",
]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    """The quickstart's base with the head width that vLLM's kernels need."""
    return str(widen("embedded:registers-base", tmp_path_factory.mktemp("base")))


@pytest.fixture(scope="module")
def server(base, tmp_path_factory):
    """A server that loads adapters and weights. Tests with adapters come first, since weights replace its model."""
    with serving(base, tmp_path_factory.mktemp("server")) as process:
        yield process


@contextmanager
def serving(base: str, directory: Path) -> Iterator[ServerProcess]:
    """A server of a base, on loopback and with a token."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_API_KEY", TOKEN)
        patch.setenv("HF_HUB_OFFLINE", "1")
        serve = ServerSettings(python=python_with(), port=port, dtype="float32", max_model_len=128)
        model = write_served_model(Policy(base).load(), directory / "served")
        with ServerProcess(model, serve, rank=8, log=directory / "log.txt") as process:
            yield process


@pytest.fixture
def begun(base, tmp_path) -> str:
    """The model of a short run. It has the marker, so an adapter can be trained on it without new rows."""
    command = ["fit", "--config", str(ROOT / "configs" / "quickstart.yaml"), f"--model.policy.model={base}"]
    command += ["--trainer.max_steps=60", "--trainer.limit_val_batches=0", "--trainer.logger=false"]
    command += [f"--trainer.default_root_dir={tmp_path}", "--trainer.callbacks=nrt_lightning.ExportPolicy"]
    run([*command, f"--trainer.callbacks.directory={tmp_path / 'begun'}"])
    return str(tmp_path / "begun")


@pytest.fixture
def url(server) -> str:
    return server.serve.url


def questions(policy: Policy, **settings) -> GenerationRequest:
    texts = ["a4b*2c+2d+3?dc:", "b*2c+1?c:", "a2b+1c*3?cb:", "a0b-1?b:"]
    rows = [policy.tokenizer(text)["input_ids"] for text in texts]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows])
    defaults = {"max_new_tokens": 32, "stop_ids": [policy.markup.marker_ids[0], *policy.eos_ids], "group_size": 4}
    return GenerationRequest(ids, mask, **defaults | settings, logprobs=True)


def moved(policy: Policy, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))


@torch.no_grad()
def worst_difference(policy: Policy, request: GenerationRequest, out) -> float:
    """Largest difference between the log-probs of vLLM and transformers, in nats."""
    worst = 0.0
    for row in range(len(out)):
        prompt = request.prompt_ids[row // request.group_size][request.prompt_mask[row // request.group_size]]
        line = out.token_ids[row][out.token_mask[row]]
        logits = policy.network(torch.cat([prompt, line])[None]).logits[0, len(prompt) - 1 : -1]
        ours = logits.log_softmax(dim=-1).gather(-1, line[:, None]).squeeze(-1)
        worst = max(worst, float((ours - out.logprobs[row, : len(line)]).abs().max()))
    return worst


def check_follows(policy: Policy, engine: VLLMServerEngine) -> None:
    """Rollouts are sampled from the current weights, regardless of earlier weights and caches."""
    for step in range(4):
        moved(policy, step)  # a marker that is new is a copy of the end token, and greedily there would be no telling
        greedy = questions(policy, temperature=0.0, group_size=1)
        theirs, ours = engine.generate(policy, greedy), TransformersEngine().generate(policy, greedy)
        assert torch.equal(theirs.token_ids, ours.token_ids), step
        sampled = questions(policy, seed=step)
        assert worst_difference(policy, sampled, engine.generate(policy, sampled)) < 1e-4


def fit(root: Path, base: str, url: str, *options: str) -> dict:
    """Results of the quickstart with a server as its engine."""
    settings = {
        "model": {
            "init_args": {
                "policy": {"class_path": "nrt_lightning.Policy", "init_args": {"model": base}},
                "engine": {"class_path": "nrt_lightning.VLLMServerEngine", "init_args": {"urls": [url]}},
            }
        },
        "trainer": {
            "default_root_dir": str(root),
            "limit_val_batches": 0,
            "logger": False,
            "enable_progress_bar": False,
            "callbacks": [
                {"class_path": "nrt_lightning.ResultsFile", "init_args": {"path": str(root / "r.json"), "name": "nrt"}}
            ],
        },
    }
    (root / "vllm.yaml").write_text(json.dumps(settings))
    run(["fit", "--config", str(ROOT / "configs" / "quickstart.yaml"), "--config", str(root / "vllm.yaml"), *options])
    return json.loads((root / "r.json").read_text())["nrt"]


def test_a_wrong_token_is_refused(base, url, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "wrong")
    with pytest.raises(InputError, match=r"engine\.urls.*engine\.token_variable"):
        VLLMServerEngine([url]).check(Policy(base))


def test_a_server_without_the_policys_marker_is_refused(base, url):
    with pytest.raises(InputError, match=r"engine\.urls.*<\|another\|>"):
        VLLMServerEngine([url]).check(Policy(base, marker="<|another|>"))


def test_a_server_of_another_vocabulary_is_refused(url):
    with pytest.raises(InputError, match=r"engine\.urls.*nrt-lightning serve"):
        VLLMServerEngine([url]).check(Policy("embedded:reports-base"))


def test_a_server_of_another_model_is_refused(base, url, tmp_path):
    other = Policy(base).load()
    moved(other, 0)
    other.network.save_pretrained(tmp_path)
    other.tokenizer.save_pretrained(tmp_path)
    policy = Policy(str(tmp_path), adapter=PLAIN).load()
    with pytest.raises(InputError, match=r"VLLMServerEngine.*engine\.tolerance is 0\.1"):
        VLLMServerEngine([url]).send(policy)


def test_with_adapters_rollouts_follow_the_policy(base, url):
    policy = Policy(base, adapter=PLAIN).load().eval()
    engine = VLLMServerEngine([url])
    check_follows(policy, engine)
    assert isinstance(engine.sync, AdapterSync)


def test_an_adapter_alone_goes_on_from_a_model_that_knows_the_marker(begun, tmp_path):
    with serving(begun, tmp_path / "server") as server:
        found = fit(tmp_path, begun, server.serve.url, *LORA, "--model.policy.init_args.adapter.marker_rows=false")
    print("adapter alone", found)
    assert found["exact_match"] >= 0.90


def test_with_all_weights_rollouts_follow_the_policy(base, url):
    policy = Policy(base).load().eval()
    engine = VLLMServerEngine([url])
    check_follows(policy, engine)
    assert isinstance(engine.sync, WeightsSync)


def test_marker_rows_and_dora_go_merged(base, url):
    inner = [
        "gate_proj",
        "up_proj",
        "down_proj",
    ]  # wide heads have rows of 0, and DoRA divides by their norms
    policy = Policy(base, adapter=LoRA(rank=4, dora=True, targets=inner)).load().eval()
    check_follows(policy, VLLMServerEngine([url]))


def test_the_quickstart_learns_with_lora(base, url, tmp_path):
    """With the marker's rows, so merged weights are sent."""
    found = fit(tmp_path, base, url, *LORA)
    print("lora", found)
    assert found["exact_match"] >= 0.90


def test_the_quickstart_learns_with_all_weights_through_a_killed_server(base, server, url, tmp_path):
    """The server is killed during the run and restarted: the run waits, sends its weights again, and continues."""
    from nrt_lightning.rollouts.vllm import server_engine

    calls, original, threads = [0], server_engine.VLLMServerEngine.generate, []

    def restart() -> None:
        server.stop()
        server.__enter__()

    def generate(self, *args, **kwargs):
        calls[0] += 1
        if calls[0] == 60:
            threads.append(threading.Thread(target=restart))
            threads[0].start()
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server_engine.VLLMServerEngine, "generate", generate)
        found = fit(tmp_path, base, url, "--model.engine.init_args.patience=1200")
    threads[0].join()
    print("weights", found)
    assert found["exact_match"] >= 0.90


COLOCATED = """
import sys, torch
sys.path.insert(0, sys.argv[2])
from rollouts.vllm.test_vllm import check_follows
from nrt_lightning import LoRA, Policy, VLLMColocatedEngine
engine = VLLMColocatedEngine(max_model_len=128, enforce_eager=True)
check_follows(Policy(sys.argv[1]).load().eval(), engine)
print("FOLLOWS", engine.version)
"""


def test_in_one_process_rollouts_follow_the_policy(base):
    """In vLLM's environment, which also has the requirements of this package."""
    python = python_with("vllm")
    python_with("lightning")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [python, "-c", COLOCATED, base, str(ROOT / "tests")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert "FOLLOWS 3" in done.stdout, done.stderr[-3000:]
