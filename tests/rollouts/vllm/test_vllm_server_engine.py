"""The client of vLLM servers, tested with a fake server on loopback."""

from __future__ import annotations

import re
import threading

import pytest
import torch
from fake_vllm import ROUTES, FakeVLLM, listening
from tiny import save_tiny

from nrt_lightning import AdapterSync, InputError, LoRA, Policy, TransformersEngine, VLLMServerEngine, WeightsSync
from nrt_lightning.rollouts import GenerationRequest
from nrt_lightning.rollouts.sampling import restrict
from nrt_lightning.rollouts.stop_text import Ending

BASE = "embedded:registers-base"


def request_of(policy: Policy, texts=("a4b*2c+2d+3?dc:", "b*2c+1?c:"), **settings) -> GenerationRequest:
    rows = [policy.tokenizer(text)["input_ids"] for text in texts]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows])
    defaults = {
        "max_new_tokens": 8,
        "stop_ids": [policy.markup.marker_ids[0], *policy.eos_ids],
        "group_size": 3,
        "logprobs": True,
    }
    return GenerationRequest(ids, mask, **defaults | settings)


def greedy_tokens_agree(engine: VLLMServerEngine, policy: Policy) -> bool:
    request = request_of(policy, temperature=0.0)
    theirs, ours = engine.generate(policy, request), TransformersEngine().generate(policy, request)
    return torch.equal(theirs.token_ids, ours.token_ids)


def moved(policy: Policy) -> None:
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))


def test_greedy_tokens_are_those_of_the_policy_before_and_after_its_weights_change(policy, fake, url):
    engine, greedy = VLLMServerEngine([url]), {"temperature": 0.0, "group_size": 2}
    for version in range(3):
        request = request_of(policy, **greedy)
        theirs, ours = engine.generate(policy, request), TransformersEngine().generate(policy, request)
        for name in ("token_ids", "token_mask", "stopped", "logprobs"):
            assert torch.equal(getattr(theirs, name), getattr(ours, name)), name
        assert theirs.weights_version == version
        moved(policy)
    assert {body["n"] for body in fake.requests} == {1}  # vLLM takes no greedy request for several


def test_sampled_rows_stand_in_the_order_of_their_prompts_with_the_samplers_logprobs(policy, fake, url):
    request = request_of(policy, temperature=0.7, top_k=5, top_p=0.9)
    out = VLLMServerEngine([url]).generate(policy, request)
    by_prompt = {str(body["prompt"]): body for body in fake.requests}
    assert len(out) == 6
    for row, prompt in enumerate([0, 0, 0, 1, 1, 1]):
        ids = request.prompt_ids[prompt][request.prompt_mask[prompt]]
        body = by_prompt[str(ids.tolist())]
        line = out.token_ids[row][out.token_mask[row]]
        with policy.evaluating():
            logits = policy.network(torch.cat([ids, line])[None]).logits[0, len(ids) - 1 : -1]
        expected = restrict(logits, 0.7, 0.9, 5).gather(-1, line[:, None]).squeeze(-1)
        assert torch.allclose(out.logprobs[row, : len(line)], expected, atol=1e-4)
        assert (body["n"], body["temperature"], body["top_k"], body["top_p"]) == (3, 0.7, 5, 0.9)


def test_prompts_have_seeds_of_their_own_that_follow_from_prompt_and_request(policy, fake, url):
    engine = VLLMServerEngine([url])
    texts = ("a4b*2c+2d+3?dc:", "b*2c+1?c:", "b*2c+1?c:")
    first = engine.generate(policy, request_of(policy, texts, seed=5))
    seeds = [body["seed"] for body in fake.requests if "allowed_token_ids" not in body and body["n"] == 3]
    assert len(set(seeds)) == 3  # also where a prompt comes twice
    assert not torch.equal(first.token_ids[3:6], first.token_ids[6:9])
    again = engine.generate(policy, request_of(policy, texts[::-1], seed=5))
    assert torch.equal(again.token_ids[6:9], first.token_ids[:3])  # wherever the prompt stands
    other = engine.generate(policy, request_of(policy, texts, seed=6))
    assert not torch.equal(other.token_ids[:3], first.token_ids[:3])


def test_only_the_stop_ids_end_a_row_and_banned_ids_are_never_written(policy, fake, url):
    request = request_of(policy, stop_ids=[policy.markup.marker_ids[0]], banned_ids=policy.eos_ids, max_new_tokens=32)
    out = VLLMServerEngine([url]).generate(policy, request)
    body = fake.requests[-1]
    assert body["ignore_eos"] is True
    assert body["stop_token_ids"] == [policy.markup.marker_ids[0]]
    assert body["logit_bias"] == {str(policy.eos_ids[0]): -100.0}
    assert policy.eos_ids[0] not in out.token_ids[out.token_mask]
    last = out.token_ids.gather(1, out.token_mask.sum(dim=1, keepdim=True) - 1).squeeze(1)
    assert torch.equal(out.stopped, last == policy.markup.marker_ids[0])


def test_a_stop_text_is_asked_for_and_found_in_the_tokens(policy, fake, url):
    request = request_of(policy, stop_ids=policy.eos_ids, max_new_tokens=32)
    endless = TransformersEngine().generate(policy, request)
    b = int(endless.token_ids[endless.token_mask].mode().values)
    request.stop_text = policy.tokenizer.decode([b])
    out = VLLMServerEngine([url]).generate(policy, request)
    body = fake.requests[-1]
    assert body["stop"] == [request.stop_text]
    assert body["include_stop_str_in_output"]
    assert not body["skip_special_tokens"]
    assert (out.ending == Ending.TEXT).any()
    for row in range(len(out)):
        ids = out.token_ids[row][out.token_mask[row]].tolist()
        assert b not in ids[:-1]
        assert (ids[-1] == b) == (out.ending[row] == Ending.TEXT)
        assert out.stop_width[row] == (out.ending[row] != Ending.LIMIT)


def test_weights_are_sent_once_for_each_change(policy, fake, url):
    engine = VLLMServerEngine([url])
    for _ in range(3):
        engine.generate(policy, request_of(policy))
    assert fake.orders.count("/collective_rpc") == 1
    for parameter in policy.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.SGD(policy.parameters(), lr=1e-3, fused=True).step()
    engine.generate(policy, request_of(policy))
    assert fake.orders.count("/collective_rpc") == 2
    assert fake.orders.count("/reset_prefix_cache") == 2
    policy.load_state_dict(Policy(BASE).load().state_dict())
    for _ in range(2):
        engine.generate(policy, request_of(policy))
        policy.load_state_dict(policy.state_dict())
    assert fake.orders.count("/collective_rpc") == 3


def test_in_the_background_the_weights_last_sent_are_kept(policy, fake, url):
    engine = VLLMServerEngine([url])
    engine.send(policy)
    moved(policy)
    found = []
    thread = threading.Thread(target=lambda: found.append(engine.generate(policy, request_of(policy, temperature=0.0))))
    thread.start()
    thread.join()
    before = TransformersEngine().generate(Policy(BASE).load(), request_of(policy, temperature=0.0))
    assert torch.equal(found[0].token_ids, before.token_ids)
    assert found[0].weights_version == 0
    assert fake.orders.count("/collective_rpc") == 1


def test_older_versions_are_removed_from_disk_and_from_the_server(tmp_path, fake, url):
    policy = Policy(BASE, adapter=LoRA(rank=4, marker_rows=False)).load()
    engine = VLLMServerEngine([url], directory=str(tmp_path), tolerance=100.0)
    for version in range(3):
        engine.generate(policy, request_of(policy))
        [place] = tmp_path.iterdir()
        [kept] = place.iterdir()
        assert list(fake.adapters) == [kept.name]
        assert kept.name.endswith(f"-{version}")
        moved(policy)
    assert len(set(fake.paths)) == 3
    assert {body["model"] for body in fake.requests} == {"policy", *(path.name for path in fake.paths)}
    assert fake.orders.count("/collective_rpc") == 0
    del engine
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_goes_as_peft_would_save_it(tmp_path, fake, url):
    from safetensors.torch import load_file

    policy = Policy(BASE, adapter=LoRA(rank=4, marker_rows=False)).load()
    moved(policy)
    VLLMServerEngine([url], tolerance=100.0).send(policy)
    policy.model.save_pretrained(tmp_path, save_embedding_layers=False)
    expected = load_file(tmp_path / "adapter_model.safetensors")
    [sent] = fake.adapters.values()
    assert sent.keys() == expected.keys()
    assert all(torch.equal(sent[name], weight) for name, weight in expected.items())


@pytest.mark.parametrize("adapter", [LoRA(rank=4), LoRA(rank=4, marker_rows=False, dora=True)], ids=["rows", "dora"])
def test_what_vllm_cannot_read_of_an_adapter_goes_merged(adapter, fake, url):
    policy = Policy(BASE, adapter=adapter).load()
    moved(policy)
    engine = VLLMServerEngine([url])
    greedy = request_of(policy, temperature=0.0)
    assert torch.equal(
        engine.generate(policy, greedy).token_ids, TransformersEngine().generate(policy, greedy).token_ids
    )
    assert isinstance(engine.sync, WeightsSync)
    with pytest.raises(InputError, match=r"marker_rows|DoRA"):
        AdapterSync().check(policy)


def test_prompts_are_spread_over_servers(policy, fake, url):
    second = FakeVLLM(BASE)
    with listening(second) as other:
        engine = VLLMServerEngine([url, other])
        moved(policy)
        greedy = request_of(policy, ("a4b*2c+2d+3?dc:", "b*2c+1?c:", "a*2b+1?b:", "c+1?c:"), temperature=0.0)
        out = engine.generate(policy, greedy)
        assert torch.equal(out.token_ids, TransformersEngine().generate(policy, greedy).token_ids)
        asked = [sum(bool(body.get("stop_token_ids")) for body in each.requests) for each in (fake, second)]
        assert asked == [2, 2]


def test_a_server_that_was_restarted_gets_the_weights_anew(policy, fake, url):
    engine = VLLMServerEngine([url])
    moved(policy)
    engine.send(policy)
    fake.restart(BASE)
    greedy = request_of(policy, temperature=0.0)
    assert torch.equal(
        engine.generate(policy, greedy).token_ids, TransformersEngine().generate(policy, greedy).token_ids
    )
    assert fake.orders.count("/collective_rpc") == 2


def test_answers_that_fail_are_asked_for_again(policy, fake, url, monkeypatch):
    monkeypatch.setattr("nrt_lightning.rollouts.remote.connection.FIRST_WAIT", 0.01)
    engine = VLLMServerEngine([url])
    engine.send(policy)
    fake.failing = 3
    greedy = request_of(policy, temperature=0.0)
    assert torch.equal(
        engine.generate(policy, greedy).token_ids, TransformersEngine().generate(policy, greedy).token_ids
    )


def test_a_lost_server_is_given_up_in_the_end(policy, fake, monkeypatch):
    monkeypatch.setattr("nrt_lightning.rollouts.remote.connection.FIRST_WAIT", 0.01)
    with listening(fake) as url:
        engine = VLLMServerEngine([url], patience=0.1)
        engine.send(policy)
    with pytest.raises(InputError, match=rf"engine\.urls {url}.*--ckpt_path"):
        engine.generate(policy, request_of(policy))


def test_a_server_that_was_lost_and_comes_back_goes_on(policy, fake, monkeypatch):
    monkeypatch.setattr("nrt_lightning.rollouts.remote.connection.FIRST_WAIT", 0.01)
    with listening(fake) as url:
        engine = VLLMServerEngine([url])
        moved(policy)
        engine.send(policy)
    greedy = request_of(policy, temperature=0.0)
    found = []
    thread = threading.Thread(target=lambda: found.append(engine.generate(policy, greedy)))
    thread.start()
    thread.join(timeout=0.05)  # it finds nobody there
    fake.restart(BASE)
    with listening(fake, int(url.rpartition(":")[2])):
        thread.join()
    assert torch.equal(found[0].token_ids, TransformersEngine().generate(policy, greedy).token_ids)


# Refused before training


def refusal(policy: Policy, url: str, **settings) -> str:
    with pytest.raises(InputError) as caught:
        VLLMServerEngine([url], **settings).check(policy)
    return str(caught.value)


def test_an_address_where_nobody_answers_is_refused(policy):
    assert re.search(r"engine\.urls http://127.0.0.1:9.*nrt-lightning serve", refusal(policy, "http://127.0.0.1:9"))


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://127.0.0.1:8000/v1"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(InputError, match=re.escape(f"engine.urls {url!r}")):
        VLLMServerEngine([url])


def test_a_wrong_token_is_refused_and_the_right_one_is_sent(policy, fake, url, monkeypatch):
    fake.token = "secret"
    assert "engine.token_variable" in refusal(policy, url)
    monkeypatch.setenv("MY_TOKEN", "secret")
    VLLMServerEngine([url], token_variable="MY_TOKEN").check(policy)


def test_a_server_without_the_marker_is_refused(policy, fake, url):
    from transformers import AutoTokenizer

    fake.tokenizer = AutoTokenizer.from_pretrained(policy.source)
    assert "<|response_start|>" in refusal(policy, url)


def test_a_server_of_another_vocabulary_is_refused(policy, fake, url):
    class Other:
        def __call__(self, text, **_):
            ids = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
            return {"input_ids": ids if len(ids) == 1 else [i + 1 for i in ids]}

    fake.tokenizer = Other()
    assert f"{policy.source!r}" in refusal(policy, url)


def test_a_server_that_gives_the_models_own_logprobs_is_refused(policy, fake, url):
    fake.raw_logprobs = True
    assert "--logprobs-mode" in refusal(policy, url)


def test_a_server_with_weights_that_are_no_numbers_is_refused(policy, fake, url):
    fake.no_numbers = True
    assert "nan" in refusal(policy, url)


@pytest.mark.parametrize("sync", [AdapterSync(), WeightsSync()], ids=["adapter", "weights"])
def test_a_server_that_takes_no_weights_is_refused(sync, fake, url):
    fake.routes = [route for route in ROUTES if route not in sync.routes]
    policy = Policy(BASE, adapter=LoRA(rank=4, marker_rows=False))
    assert ", ".join(sync.routes) in refusal(policy, url, sync=sync)


def test_a_server_of_another_model_is_refused_when_weights_have_been_sent(tmp_path, fake, url):
    policy = Policy(save_tiny(tmp_path, "llama")).load()
    fake.keep_weights = True
    with pytest.raises(InputError, match=r"VLLMServerEngine.*engine\.tolerance is 0\.1"):
        VLLMServerEngine([url]).send(policy)


def test_texts_longer_than_the_server_takes_are_refused(policy, fake, url):
    with pytest.raises(InputError, match=r"VLLMServerEngine.* 128 .* 2\d\d.*max_trace_tokens"):
        VLLMServerEngine([url]).generate(policy, request_of(policy, max_new_tokens=200))


def test_settings_out_of_range_are_refused(tmp_path):
    for name, value in {"urls": [], "patience": -1.0, "tolerance": 0.0, "directory": str(tmp_path / "x")}.items():
        with pytest.raises(InputError, match=rf"engine\.{name}"):
            VLLMServerEngine(**{name: value})
