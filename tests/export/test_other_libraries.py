"""Exports in libraries for evaluation and serving; skipped if these are not installed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from tiny import QUESTIONS, save_tiny
from vllm_environment import python_with

from nrt_lightning import AdapterFiles, LoRA, Policy, export_policy

TOKENS = 24


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A random policy that samples its marker, and its directory."""
    base = Path(save_tiny(tmp_path_factory.mktemp("base"), "llama", tied=False))
    config = json.loads((base / "config.json").read_text()) | {"head_dim": 64}  # vLLM has no kernel for smaller ones
    (base / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    policy = Policy(str(base), weights="random").load().eval()
    rows = policy.network.get_output_embeddings().weight
    with torch.no_grad():
        rows[policy.markup.marker_ids[0]] = 1.01 * rows[continued(policy, QUESTIONS[0])[6]]
    return policy, export_policy(policy, tmp_path_factory.mktemp("export") / "m")


@torch.no_grad()
def continued(policy: Policy, question: str) -> list[int]:
    ids = policy.tokenizer(question, return_tensors="pt")["input_ids"]
    rows = policy.network.get_output_embeddings().weight.shape[0]
    unused = [*range(len(policy.tokenizer), rows)]  # which other libraries leave out
    out = policy.network.generate(ids, max_new_tokens=TOKENS, do_sample=False, suppress_tokens=unused or None)
    return out[0, ids.shape[1] :].tolist()


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """An adapter that samples a marker missing in its base, and the directories of both."""
    base = save_tiny(tmp_path_factory.mktemp("plain"), "llama", tied=False)
    plain = Policy(base).load()
    plain.network.resize_token_embeddings(
        plain.markup.marker_ids[0]
    )  # no more rows than tokens: lm-eval cuts off the rest
    plain.network.save_pretrained(base)
    torch.manual_seed(1)
    policy = Policy(base, adapter=LoRA(rank=2)).load().eval()
    head = policy.network.get_output_embeddings().token_adapter
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter += 0.1 * torch.randn_like(parameter)
        (row,) = head.trainable_tokens_delta.values()
        row.copy_(1.01 * head.base_layer.weight[continued(policy, QUESTIONS[0])[6]])
    directory = export_policy(policy, tmp_path_factory.mktemp("adapter") / "m", AdapterFiles())
    return policy, {"pretrained": base, "peft": str(directory), "tokenizer": str(directory)}


@pytest.mark.parametrize("form", ["exported", "adapted"])
def test_lm_eval_reads_the_answer_after_the_marker(form, request):
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install lm-eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    policy, files = request.getfixturevalue(form)
    files = files if form == "adapted" else {"pretrained": str(files)}
    model = HFLM(
        **files,
        device="cpu",
        batch_size=1,
        think_end_token=str(policy.markup.marker_ids[0]),
        add_bos_token=True,
        dtype="float32",
    )
    settings = {"until": ["\n\n\n"], "max_gen_toks": TOKENS, "do_sample": False}
    requests = [Instance("generate_until", {}, (question, settings), i) for i, question in enumerate(QUESTIONS)]
    answers = model.generate_until(requests, disable_tqdm=True)
    for question, answer in zip(QUESTIONS, answers):
        tokens = continued(policy, question)
        places = [i for i, token in enumerate(tokens) if token == policy.markup.marker_ids[0]]
        begin = places[-1] + 1 if places else 0
        assert answer.strip() == policy.tokenizer.decode(tokens[begin:], skip_special_tokens=True).strip()
    assert policy.markup.marker_ids[0] in continued(policy, QUESTIONS[0])
    assert answers[0]


VLLM = """
import json, sys
from vllm import LLM, SamplingParams
model = LLM(sys.argv[1], dtype="float32", max_model_len=128, enforce_eager=True)
prompts = [{"prompt_token_ids": ids} for ids in json.loads(sys.argv[2])]
outs = model.generate(prompts, SamplingParams(temperature=0.0, max_tokens=int(sys.argv[3]), skip_special_tokens=False))
print("TOKENS", json.dumps([list(out.outputs[0].token_ids) for out in outs]))
"""


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_writes_the_same_tokens(exported):
    python = python_with("vllm")
    policy, directory = exported
    questions = [policy.tokenizer(question)["input_ids"] for question in QUESTIONS]
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1"}
    command = [python, "-c", VLLM, str(directory), json.dumps(questions), str(TOKENS)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | settings)
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("TOKENS")]
    assert json.loads(line.removeprefix("TOKENS ")) == [continued(policy, question) for question in QUESTIONS]
