"""Servers that stop answering, and weights that not all servers could load."""

from __future__ import annotations

import socket
import threading
import time

import pytest
import torch
from fake_vllm import FakeVLLM, listening
from test_vllm_server_engine import BASE, greedy_tokens_agree, moved, request_of

from nrt_lightning import InputError, LoRA, Policy, VLLMServerEngine
from nrt_lightning.rollouts.remote import connection
from nrt_lightning.rollouts.remote.connection import Connection, keep_alive
from nrt_lightning.rollouts.vllm.serving import ServerSettings


def impatient(engine, monkeypatch):
    """Once everything is set up: a machine may be slow."""
    monkeypatch.setattr(connection, "SHORTEST", 0.4)
    monkeypatch.setattr(connection, "FIRST_WAIT", 0.05)
    for server in engine.servers:
        server.patience = 0.4


@pytest.mark.parametrize("path", ["/v1/completions", "/collective_rpc", "/weight_info", "/reset_prefix_cache"])
def test_a_server_that_stops_answering_ends_the_run_after_patience(policy, fake, url, monkeypatch, path):
    engine = VLLMServerEngine([url], tolerance=100.0)
    engine.send(policy)
    moved(policy)
    impatient(engine, monkeypatch)
    fake.silent |= {path, "/health"}
    began = time.monotonic()
    with pytest.raises(InputError, match=rf"engine\.urls {url}.*--ckpt_path"):
        engine.generate(policy, request_of(policy))
    assert time.monotonic() - began < 60


def test_an_answer_may_take_longer_than_patience_while_the_server_is_alive(policy, fake, url, monkeypatch):
    engine = VLLMServerEngine([url])
    engine.send(policy)
    impatient(engine, monkeypatch)
    fake.silent.add("/v1/completions")
    threading.Timer(2.0, fake.silent.clear).start()
    assert greedy_tokens_agree(engine, policy)


def test_a_server_whose_engine_is_dead_counts_as_silent(policy, fake, url, monkeypatch):
    engine = VLLMServerEngine([url])
    engine.send(policy)
    impatient(engine, monkeypatch)
    fake.silent.add("/v1/completions")
    fake.broken.add("/health")
    with pytest.raises(InputError, match="silent"):
        engine.generate(policy, request_of(policy))


def test_threads_do_not_wait_for_answers_that_are_no_longer_needed(policy, fake, url):
    """One prompt of two is refused; the other one's answer never comes, and the server is alive."""
    engine = VLLMServerEngine([url])
    engine.send(policy)
    reply = fake.reply

    def once(method, path, body, token):
        if path == "/v1/completions":
            fake.silent.add(path)
            return 400, {"error": {"message": "no"}}
        return reply(method, path, body, token)

    fake.reply = once
    began = time.monotonic()
    with pytest.raises(InputError, match="refuses: no"):
        engine.generate(policy, request_of(policy, ("a4b*2c+2d+3?dc:", "b*2c+1?c:", "c+1?c:")))
    assert time.monotonic() - began < 60


def test_connections_are_kept_alive():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        keep_alive(client)
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@pytest.mark.parametrize(
    ("host", "url"),
    [("::1", "http://[::1]:8000"), ("::", "http://[::1]:8000"), ("0.0.0.0", "http://127.0.0.1:8000"),
     ("localhost", "http://localhost:8000")],
)  # fmt: skip
def test_the_address_of_a_server_is_one_that_the_engine_takes(host, url, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    settings = ServerSettings(host=host, reachable_by_others=True)
    assert settings.url == url
    assert Connection(settings.url).address == (url[7:-5].strip("[]"), 8000)


@pytest.mark.parametrize("url", ["http://::1:8000", "http://[::1:8000", "http://host:port"])
def test_an_address_without_its_brackets_is_refused(url):
    with pytest.raises(InputError, match=r"engine\.urls.*\[::1\]"):
        VLLMServerEngine([url])


@pytest.mark.parametrize("adapter", [LoRA(rank=4, marker_rows=False), None], ids=["adapter", "weights"])
def test_weights_that_one_server_cannot_load_are_removed_everywhere(tmp_path, adapter, fake, url):
    policy, second = Policy(BASE, adapter=adapter).load(), FakeVLLM(BASE)
    load = "/v1/load_lora_adapter" if adapter else "/collective_rpc"
    with listening(second) as other:
        engine = VLLMServerEngine([url, other], directory=str(tmp_path), tolerance=100.0)
        engine.send(policy)
        first, version = engine.current, engine.version
        moved(policy)
        second.broken.add(load)
        with pytest.raises(InputError, match=rf"{other} cannot load the policy's weights"):
            engine.send(policy)
        [place] = tmp_path.iterdir()
        assert [kept.name for kept in place.iterdir()] == [first[0]], "the files of the version before alone"
        assert (engine.current, engine.version) == (first, version)
        assert list(fake.adapters) in ([], [first[0]])
        second.broken.clear()
        engine.generate(policy, request_of(policy))
        assert engine.version == version + 1
        assert [kept.name for kept in place.iterdir()] == [engine.current[0]]
        if adapter:
            assert list(fake.adapters) == list(second.adapters) == [engine.current[0]]
        else:
            weights = [dict(each.policy.named_parameters()) for each in (fake, second)]
            assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())
