"""Exports are loaded by other libraries and give the same answers as the policy."""

from __future__ import annotations

import copy
import json
import shutil

import pytest
import torch
from tiny import ANSWERS, BASE, QUESTIONS, make_prompts, save_tiny
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from nrt_lightning import AdapterFiles, FourBit, InputError, LoRA, Merged, Policy, WholeModel, export_policy
from nrt_lightning.data import ChatTemplate, PlainTemplate
from nrt_lightning.data.default_template import fit_together
from nrt_lightning.export import RunRecord
from nrt_lightning.export import writer as writer_file
from nrt_lightning.rollouts import GenerationRequest, TransformersEngine
from nrt_lightning.structures import Row

TOKENS = 24


def trained(**settings) -> Policy:
    """A policy with changed adapter or weights."""
    torch.manual_seed(1)
    policy = Policy(settings.pop("model", BASE), **settings).load().eval()
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    return policy


def greedy(policy: Policy) -> list[list[int]]:
    """Greedy tokens of the policy after the questions."""
    prompts = make_prompts(policy, QUESTIONS, ANSWERS)
    request = GenerationRequest(
        prompts.prompt_ids, prompts.prompt_mask, TOKENS, [policy.tokenizer.eos_token_id], temperature=0.0
    )
    written = TransformersEngine().generate(policy, request)
    return [ids[mask].tolist() for ids, mask in zip(written.token_ids, written.token_mask)]


@torch.no_grad()
def generated(model, tokenizer) -> list[list[int]]:
    """Greedy tokens of the model's `generate` with the exported generation config."""
    found = []
    for question in QUESTIONS:
        ids = tokenizer(question, return_tensors="pt")["input_ids"]
        out = model.eval().generate(ids, max_new_tokens=TOKENS, do_sample=False)
        found.append(out[0, ids.shape[1] :].tolist())
    return found


@pytest.fixture(scope="module")
def padded(tmp_path_factory):
    """A base with unused vocabulary rows for the marker and untied embeddings."""
    return save_tiny(tmp_path_factory.mktemp("padded"), "llama", tied=False)


def test_a_whole_model_comes_back_bit_for_bit(tmp_path):
    policy = trained()
    directory = export_policy(policy, tmp_path / "m")
    model = AutoModelForCausalLM.from_pretrained(directory)
    saved = model.state_dict()
    assert saved.keys() == policy.network.state_dict().keys()
    assert all(torch.equal(value, saved[name]) for name, value in policy.network.state_dict().items())
    assert generated(model, AutoTokenizer.from_pretrained(directory)) == greedy(policy)


@pytest.mark.parametrize("base", ["embedded", "padded"])
def test_an_adapter_is_read_by_peft(tmp_path, base, padded):
    from peft import AutoPeftModelForCausalLM

    policy = trained(model=BASE if base == "embedded" else padded, adapter=LoRA(rank=4))
    directory = export_policy(policy, tmp_path / "m", AdapterFiles())
    model = AutoPeftModelForCausalLM.from_pretrained(directory)
    model.generation_config = GenerationConfig.from_pretrained(directory)  # peft reads the base's
    assert generated(model, AutoTokenizer.from_pretrained(directory)) == greedy(policy)
    assert not (directory / "model.safetensors").exists()


@pytest.mark.parametrize("settings", [{}, {"dora": True}, {"rslora": True}, {"marker_rows": False}])
@pytest.mark.parametrize("base", ["embedded", "padded"])
def test_a_merged_adapter_answers_the_same(tmp_path, settings, base, padded):
    policy = trained(model=BASE if base == "embedded" else padded, adapter=LoRA(rank=4, **settings))
    before = {name: value.clone() for name, value in policy.named_parameters()}
    directory = export_policy(policy, tmp_path / "m", Merged("float32"))
    model = AutoModelForCausalLM.from_pretrained(directory)
    assert generated(model, AutoTokenizer.from_pretrained(directory)) == greedy(policy)
    assert all(torch.equal(value, before[name]) for name, value in policy.named_parameters())


def test_merging_is_exact_in_float32(tmp_path, padded):
    policy = trained(model=padded, adapter=LoRA(rank=4))
    directory = export_policy(policy, tmp_path / "m", Merged("float32"))
    ids = torch.tensor([[5, 6, 7, policy.markup.marker_ids[0], 9]])
    with torch.no_grad():
        here, there = policy.network(ids).logits, AutoModelForCausalLM.from_pretrained(directory)(ids).logits
    torch.testing.assert_close(there, here, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("float16", 0.003), ("bfloat16", 0.02)])
def test_a_base_in_four_bits_is_dequantized_before_merging(tmp_path, dtype, bound):
    pytest.importorskip("bitsandbytes")
    policy = trained(adapter=LoRA(rank=4), quantization=FourBit())
    greedy(policy)  # a rollout, after which some CPUs have repacked the weights
    directory = export_policy(policy, tmp_path / "m", Merged(dtype))
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    straight = copy.deepcopy(policy).model.merge_and_unload()  # rounded to 4 bits once more
    ids = torch.tensor([[5, 6, 7, policy.markup.marker_ids[0], 9]])
    with torch.no_grad():
        here, there, rounded = (each(ids).logits for each in (policy.network, model, straight))
    assert (there - here).norm() / here.norm() < bound
    assert (rounded - here).norm() / here.norm() > 0.1
    assert getattr(model.config, "quantization_config", None) is None


def test_the_marker_ends_nothing_and_the_base_ends_as_before(tmp_path):
    shutil.copytree(BASE, tmp_path / "base")
    file = tmp_path / "base" / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": [2, 5]}))
    policy = Policy(str(tmp_path / "base")).load()
    directory = export_policy(policy, tmp_path / "m")
    assert json.loads((directory / "generation_config.json").read_text())["eos_token_id"] == [2, 5]


ROWS = [
    Row("0", [{"role": "user", "content": 'a1 "b"\n2?'}]),
    Row("1", [{"role": "system", "content": "be brief"}, {"role": "user", "content": "a1"}]),
]
CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}={% endif %}"
)


@pytest.mark.parametrize(
    "template",
    [
        PlainTemplate(),
        PlainTemplate("q: {question}\nthink:"),
        PlainTemplate("{question} {question}", system_prompt='say "x"'),
        ChatTemplate(template=CHAT),
        ChatTemplate(template=CHAT + "{{ mood }}", system_prompt="be kind", kwargs={"mood": "calm"}),
    ],
)
def test_the_chat_template_gives_the_prompts_of_training(tmp_path, template):
    policy = Policy(BASE).load()
    record = RunRecord(chat_template=template.jinja(policy.tokenizer))
    tokenizer = AutoTokenizer.from_pretrained(export_policy(policy, tmp_path / "m", record=record))
    for row in ROWS:
        ids = tokenizer.apply_chat_template(row.messages, add_generation_prompt=True, return_dict=False)
        assert ids == template.encode(row, policy.tokenizer)


@pytest.mark.parametrize("system", [None, "Sum.", ""])
@pytest.mark.parametrize("adds_bos", [False, True])
def test_prompts_of_tokenizers_that_begin_with_a_space_come_back(tmp_path, subword_dir, system, adds_bos):
    policy = Policy(subword_dir).load()
    if adds_bos:
        backend = policy.tokenizer.backend_tokenizer
        backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    template = PlainTemplate("Question: {question}\nAnswer:")
    record = RunRecord(chat_template=template.jinja(policy.tokenizer))
    tokenizer = AutoTokenizer.from_pretrained(export_policy(policy, tmp_path / "m", record=record))
    turns = [] if system is None else [{"role": "system", "content": system}]
    row = Row("0", [*turns, {"role": "user", "content": "6 + 9"}])
    ids = tokenizer.apply_chat_template(row.messages, add_generation_prompt=True, return_dict=False)
    assert ids == template.encode(row, policy.tokenizer)
    assert (ids[0] == 1) == adds_bos


def test_the_card_says_where_it_comes_from(tmp_path):
    record = RunRecord({"aggregator": "Prob()"}, "train.jsonl", {"val/exact_match": 0.5}, "nrt-lightning fit", None)
    card = (export_policy(trained(), tmp_path / "m", record=record) / "README.md").read_text()
    assert all(text in card for text in ("Prob()", "train.jsonl", "| val/exact_match | 0.5 |", "nrt-lightning fit"))
    assert "<|response_start|>" in card


def test_nothing_is_overwritten_unless_told(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "precious").write_text("x")
    with pytest.raises(InputError, match=rf"{tmp_path / 'm'}.*overwrite"):
        export_policy(trained(), tmp_path / "m")
    assert (tmp_path / "m" / "precious").read_text() == "x"
    export_policy(trained(), tmp_path / "m", overwrite=True)
    assert not (tmp_path / "m" / "precious").exists()
    assert Policy(str(tmp_path / "m")).load()


def test_an_export_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    policy = trained()
    export_policy(policy, tmp_path / "m")
    before = sorted(path.name for path in (tmp_path / "m").iterdir())

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(writer_file, "generation_config", fail)
    with pytest.raises(OSError, match="disk full"):
        export_policy(policy, tmp_path / "m", overwrite=True)
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize(
    ("adapter", "form", "message"),
    [
        (None, AdapterFiles(), "AdapterFiles.*WholeModel"),
        (None, Merged(), "Merged.*WholeModel"),
        (LoRA(rank=2), WholeModel(), "WholeModel.*Merged"),
        (LoRA(rank=2, marker_rows=False), AdapterFiles(), r"AdapterFiles.*adapter\.marker_rows"),
    ],
)
def test_forms_that_a_policy_does_not_have_are_refused(tmp_path, adapter, form, message):
    with pytest.raises(InputError, match=message):
        export_policy(Policy(BASE, adapter=adapter), tmp_path / "m", form)
    assert list(tmp_path.iterdir()) == []


def test_an_export_keeps_a_marker_that_is_text(subword_dir, tmp_path):
    policy = Policy(subword_dir, " =>", separator="", answer_end="\n\n").load()
    template = fit_together(None, policy.tokenizer, policy)
    record = RunRecord(chat_template=template.jinja(policy.tokenizer))
    directory = export_policy(policy, tmp_path / "m", record=record)
    again = Policy(str(directory))
    assert again.markup == policy.markup
    assert not again.marker_is_new
    assert len(again.tokenizer) == len(AutoTokenizer.from_pretrained(subword_dir)), "no token is added"
    prompts = fit_together(None, again.tokenizer, again)
    assert again.markup == policy.markup
    assert prompts.render(ROWS[0], again.tokenizer).count("=>") == template.render(ROWS[0], policy.tokenizer).count(
        "=>"
    )
    card = (directory / "README.md").read_text()
    assert "` =>` (ordinary text" in card
    assert "split the output" in card
