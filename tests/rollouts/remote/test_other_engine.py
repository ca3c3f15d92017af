"""An engine for a server with another API than vLLM's. The server runs in a thread of the test."""

from __future__ import annotations

import ast
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from rollouts.remote import other_engine
from rollouts.vllm.test_vllm_server_engine import moved, request_of
from safetensors.torch import load_file
from short_runs import Recorder, nrt_module, registers

from nrt_lightning import InputError, Policy, TransformersEngine
from nrt_lightning.rollouts import GenerationRequest, Generations
from nrt_lightning.rollouts.sampling import restrict

BASE = "embedded:registers-base"
TOKEN = "secret"


class Server(BaseHTTPRequestHandler):
    """Samples with `generate` of transformers."""

    model, orders, turn = None, [], threading.Lock()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or "null")
        allowed = self.headers["Authorization"] == f"Bearer {TOKEN}"
        with self.turn, torch.no_grad():
            value = getattr(self, self.path.strip("/"))(body) if allowed else {"error": "who are you?"}
        text = json.dumps(value).encode()
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_PUT = do_POST

    def limits(self, body: None) -> dict:
        return {"context": 128}

    def weights(self, body: dict) -> dict:
        self.orders.append(body["revision"])
        self.model.load_state_dict(load_file(Path(body["folder"]) / "model.safetensors"))
        return {}

    def sample(self, body: dict) -> list[dict]:
        torch.manual_seed(body["seed"])
        prompt, greedy = torch.tensor([body["tokens"]]), body["heat"] == 0
        warm = {} if greedy else {"temperature": body["heat"], "top_p": body["mass"], "top_k": body["best"]}
        out = self.model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=not greedy, num_return_sequences=body["times"],
            max_new_tokens=body["length"], eos_token_id=body["end"] or None, suppress_tokens=body["never"] or None,
            pad_token_id=0, output_scores=True, return_dict_in_generate=True, **warm,
        )  # fmt: skip
        logprobs = torch.stack(out.scores, dim=1).log_softmax(dim=-1)  # [K, L, V]
        rows = []
        for ids, row in zip(out.sequences[:, prompt.shape[1] :], logprobs):
            ends = [i + 1 for i, token in enumerate(ids.tolist()) if token in body["end"]]
            ids = ids[: ends[0] if ends else None]
            rows.append({"tokens": ids.tolist(), "logprobs": row[range(len(ids)), ids].tolist()})
        return rows

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTHER_TOKEN", TOKEN)
    monkeypatch.setattr(Server, "model", Policy(BASE).load().network.eval())
    monkeypatch.setattr(Server, "orders", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield other_engine.OtherEngine(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()


def test_it_is_written_against_the_remote_package_alone() -> None:
    source = Path(other_engine.__file__).read_text()
    modules = [node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    assert [name for name in modules if name.startswith("nrt_lightning")] == ["nrt_lightning.rollouts.remote"]
    assert source.count("\n") < 80


def test_nothing_in_the_remote_package_is_vllms() -> None:
    package = Path(other_engine.__file__).parents[3] / "nrt_lightning" / "rollouts" / "remote"
    assert [path.name for path in package.glob("*.py") if "vllm" in path.read_text().lower()] == []


def expected_logprobs(policy: Policy, request: GenerationRequest, out: Generations, row: int) -> torch.Tensor:
    prompt = row // request.group_size
    ids = request.prompt_ids[prompt][request.prompt_mask[prompt]]
    line = out.token_ids[row][out.token_mask[row]]
    with policy.evaluating():
        logits = policy.network(torch.cat([ids, line])[None]).logits[0, len(ids) - 1 : -1]
    if request.banned_ids:
        logits[:, request.banned_ids] = -torch.inf
    return restrict(logits, request.temperature, request.top_p, request.top_k).gather(-1, line[:, None]).squeeze(-1)


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7, "top_k": 5, "top_p": 0.9}, {"banned_ids": [2]}])
def test_logprobs_are_those_of_the_sampling_distribution(policy, engine, settings) -> None:
    request = request_of(policy, stop_ids=[policy.markup.marker_ids[0]], **settings)
    out = engine.generate(policy, request)
    assert len(out) == 6
    assert not torch.equal(out.token_ids[0], out.token_ids[1])
    for row in range(6):
        found = out.logprobs[row][out.token_mask[row]]
        torch.testing.assert_close(found, expected_logprobs(policy, request, out, row), atol=1e-4, rtol=1e-4)


def test_it_samples_from_the_changed_weights(policy, engine) -> None:
    request = request_of(policy, temperature=0.0)
    for version in range(3):
        theirs, ours = engine.generate(policy, request), TransformersEngine().generate(policy, request)
        for name in ("token_ids", "token_mask", "stopped", "logprobs"):
            assert torch.equal(getattr(theirs, name), getattr(ours, name)), name
        assert theirs.weights_version == version
        engine.generate(policy, request)
        assert Server.orders == [*range(version + 1)], "weights that have not changed are not sent again"
        moved(policy)


def test_a_server_that_ignores_the_weights_is_noticed(policy, engine, monkeypatch) -> None:
    monkeypatch.setattr(Server, "weights", lambda self, body: {})
    moved(policy)
    with pytest.raises(InputError, match=r"OtherEngine.*engine\.tolerance is 0\.001.*registers-base"):
        engine.send(policy)


def test_a_wrong_token_and_long_sequences_are_refused(policy, engine, monkeypatch) -> None:
    with pytest.raises(InputError, match=r"OtherEngine.* 128 .* 2\d\d.*max_trace_tokens"):
        engine.generate(policy, request_of(policy, max_new_tokens=200))
    monkeypatch.setenv("OTHER_TOKEN", "wrong")
    with pytest.raises(InputError, match="who are you"):
        other_engine.OtherEngine(engine.server.url).check(policy)


def test_a_module_trains_with_it(engine, quiet_trainer) -> None:
    recorder = Recorder()
    quiet_trainer(max_steps=2, callbacks=[recorder]).fit(nrt_module(engine=engine), registers())
    assert [batch.rollouts.weights_version for batch in recorder.batches] == [0, 1]
    for metrics in recorder.metrics:
        assert metrics["train/sampler_difference_max"] < 1e-3
