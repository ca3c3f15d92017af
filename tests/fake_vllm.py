"""A fake vLLM server on loopback that samples from a policy of this process."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from safetensors.torch import load_file

from nrt_lightning import Policy, TransformersEngine
from nrt_lightning.rollouts import GenerationRequest

ROUTES = ["/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/collective_rpc", "/reset_prefix_cache",
          "/update_weight_version", "/weight_info"]  # fmt: skip


class FakeVLLM:
    """State of a server, which tests inspect and break."""

    def __init__(self, source: str, token: str | None = None) -> None:
        self.policy = Policy(source).load().eval()
        self.token, self.version, self.adapters = token, "default", {}
        self.requests: list[dict] = []  # bodies of /v1/completions
        self.orders: list[str] = []  # paths of orders, in turn
        self.paths: list[Path] = []  # of weights that were loaded
        self.routes, self.tokenizer = ROUTES, self.policy.tokenizer
        self.raw_logprobs = self.keep_weights = self.no_numbers = False
        self.failing = 0  # so many answers are 500
        self.silent: set[str] = set()  # paths that are not answered
        self.broken: set[str] = set()  # paths that are answered with 500
        self.started = 0

    def restart(self, source: str) -> None:
        """Forget all loaded weights."""
        fresh = FakeVLLM(source)
        self.policy, self.version, self.adapters, self.started = fresh.policy, "default", {}, self.started + 1

    def reply(self, method: str, path: str, body: dict, token: str | None) -> tuple[int, object]:
        if path.startswith("/v1") and self.token is not None and token != f"Bearer {self.token}":
            return 401, {"error": "Unauthorized"}
        if path in self.broken:
            return 500, {"error": {"message": "out of memory"}}
        if path == "/health":
            return 200, ""
        if self.failing and path == "/v1/completions":
            self.failing -= 1
            return 500, {"error": {"message": "engine dead"}}
        if self.no_numbers and path == "/v1/completions":
            return 400, {"error": {"message": "Out of range float values are not JSON compliant"}}
        if path in ROUTES:
            self.orders.append(path)
            return self.order(path, body)
        if path == "/v1/models":
            names = [{"id": "policy", "parent": None, "max_model_len": 128}]
            return 200, {"data": names + [{"id": name, "parent": "policy"} for name in self.adapters]}
        if path == "/openapi.json":
            return 200, {"paths": {route: {} for route in self.routes}}
        if path == "/tokenize":
            return 200, {"tokens": self.tokenizer(body["prompt"], add_special_tokens=False)["input_ids"]}
        if path == "/v1/completions":
            return self.complete(body)
        return 404, {"detail": "Not Found"}

    def order(self, path: str, body: dict) -> tuple[int, object]:
        if path == "/weight_info":
            return 200, {"weight_version": self.version}
        if path == "/update_weight_version":
            self.version = body["new_version"]
        elif path == "/collective_rpc":
            place = Path(body["kwargs"]["weights_path"])
            self.paths.append(place)
            weights = {name: w for file in sorted(place.glob("*.safetensors")) for name, w in load_file(file).items()}
            if not self.keep_weights:
                self.policy.network.load_state_dict(weights, strict=False)
        elif path == "/v1/load_lora_adapter":
            self.paths.append(Path(body["lora_path"]))
            self.adapters[body["lora_name"]] = load_file(self.paths[-1] / "adapter_model.safetensors")
        elif path == "/v1/unload_lora_adapter":
            del self.adapters[body["lora_name"]]
        return 200, {"success": True}

    def complete(self, body: dict) -> tuple[int, object]:
        self.requests.append(body)
        if body["model"] != "policy" and body["model"] not in self.adapters:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        if "allowed_token_ids" in body:
            [token] = body["allowed_token_ids"]
            return 200, {"choices": [choice(0, [token], [-1.5 if self.raw_logprobs else 0.0])]}
        ids = torch.tensor([body["prompt"]])
        request = GenerationRequest(
            ids, torch.ones_like(ids, dtype=torch.bool), body["max_tokens"], body.get("stop_token_ids", []), body["n"],
            body["temperature"], body.get("top_p", 1.0), body.get("top_k", 0),
            [int(token) for token in body.get("logit_bias", {})], body["seed"], logprobs=True,
            stop_text=next(iter(body.get("stop", [])), None),
        )  # fmt: skip
        out = TransformersEngine().generate(self.policy, request)
        rows = zip(out.token_ids, out.token_mask, out.logprobs)
        lines = [(ids[mask].tolist(), logprobs[mask].tolist()) for ids, mask, logprobs in rows]
        return 200, {"choices": [choice(i, *line) for i, line in enumerate(lines)][::-1]}


def choice(index: int, ids: list[int], logprobs: list[float]) -> dict:
    return {"index": index, "token_ids": ids, "logprobs": {"token_logprobs": logprobs}}


@contextmanager
def listening(fake: FakeVLLM, port: int = 0):
    """Address of a server with the state `fake`."""
    turn = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or "{}")
            while self.path in fake.silent:
                time.sleep(0.02)
            free = self.path == "/health"  # answered while the model writes
            with nullcontext() if free else turn, torch.no_grad():
                status, value = fake.reply(self.command, self.path, body, self.headers.get("Authorization"))
            text = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_GET

        def log_message(self, *args) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *args: None  # a client that has gone
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        fake.silent.clear()
        server.shutdown()
        server.server_close()
