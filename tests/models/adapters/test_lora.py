"""LoRA policies: what is trained, that it begins at the base, and that scoring and sampling know nothing of it."""

import pytest
import torch
from operations import Operations
from tiny import BASE, sampled, save_tiny
from torch import nn

from benchmarks.architectures import build
from nrt_lightning import FourBit, InputError, LoRA, Policy
from nrt_lightning.models import PackedGroups, PromptCopies, PromptTree, SharedPrompt
from nrt_lightning.models.adapters import low_rank
from nrt_lightning.models.adapters.linear_layers import left_out, linear_weights
from nrt_lightning.models.policy.loading import said
from nrt_lightning.models.policy.plain_weights import plain_weights


def perturbed(policy):
    """With an adapter that does something."""
    torch.manual_seed(5)
    with torch.no_grad():
        for p in policy.parameters():
            if p.requires_grad:
                p.add_(torch.randn_like(p) * 0.05)
    return policy


def trained(policy):
    return {name: p for name, p in policy.named_parameters() if p.requires_grad}


def gradients(policy, rollouts, scoring=None):
    policy.zero_grad()
    torch.manual_seed(3)
    weights = torch.randn(rollouts.completion_ids.shape)
    scores = (scoring or policy.scoring)(policy.network, rollouts, baseline=True)
    (scores.logprobs * weights).sum().backward()
    return scores, {name: p.grad.clone() for name, p in trained(policy).items()}


def test_training_begins_at_the_base_and_leaves_it_alone(tiny_dir):
    base = Policy(tiny_dir).load()
    policy = Policy(tiny_dir, adapter=LoRA(rank=2)).load()
    rollouts = sampled(base)
    expected = base.score(rollouts, baseline=True)
    torch.testing.assert_close(policy.score(rollouts).logprobs, expected.logprobs, atol=2e-5, rtol=1e-5)
    optimizer = torch.optim.SGD(trained(policy).values(), lr=0.5)
    policy.score(rollouts).logprobs.sum().backward()
    optimizer.step()
    assert not torch.allclose(policy.score(rollouts).logprobs, expected.logprobs, atol=1e-2)
    with policy.adapter_disabled():
        assert torch.equal(policy.score(rollouts).logprobs, expected.logprobs)


def test_what_is_trained(policy):
    small = Policy(BASE, adapter=LoRA(rank=2, targets=["q_proj", "v_proj"])).load()
    kinds = {name.split(".")[-3 if "lora" in name else -2] for name in trained(small)}
    assert kinds == {"lora_A", "lora_B", "trainable_tokens_delta"}
    shapes = sum(p.numel() for p in trained(small).values())
    assert shapes == 3 * 2 * 2 * 2 * 64 + 64  # layers, targets, A and B, rank, width; one row


def test_a_new_marker_without_rows_of_its_own_is_warned_of(tmp_path, caplog):
    without = Policy(BASE, adapter=LoRA(rank=2, targets=["q_proj"], marker_rows=False)).load()
    assert all("lora" in name for name in trained(without))
    assert "policy.adapter.marker_rows" in caplog.text
    caplog.clear()
    known = Policy(BASE).load()
    known.network.save_pretrained(tmp_path)
    known.tokenizer.save_pretrained(tmp_path)
    Policy(str(tmp_path), adapter=LoRA(rank=2, targets=["q_proj"], marker_rows=False)).load()
    assert not caplog.text


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["llama", "gemma", "gpt2"])
def test_marker_rows_get_the_gradient_of_a_full_embedding(tmp_path, family, tied):
    directory = save_tiny(tmp_path, family, tied)
    full = Policy(directory).load()
    policy = Policy(directory, adapter=LoRA(rank=2)).load()
    rollouts = sampled(full)
    gradients(full, rollouts)
    _, got = gradients(policy, rollouts)
    rows = {name: grad for name, grad in got.items() if "token" in name}
    expected = [full.network.get_input_embeddings().weight.grad[full.markup.marker_ids[0]]]
    if not tied:
        expected.append(full.network.get_output_embeddings().weight.grad[full.markup.marker_ids[0]])
    assert len(rows) == len(expected)
    for grad, e in zip(rows.values(), expected):
        assert e.norm() > 0
        torch.testing.assert_close(grad[0], e, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_marker_rows_are_those_of_peft(tmp_path, tied):
    """Its own layer, which copies the matrix, gives the same logits and gradients."""
    from peft.tuners.trainable_tokens import TrainableTokensLayer

    policy = perturbed(Policy(save_tiny(tmp_path, "llama", tied), adapter=LoRA(rank=2)).load())
    ids = torch.tensor([[3, policy.markup.marker_ids[0], 9, policy.markup.marker_ids[0]]])
    results = []
    for layer in (None, TrainableTokensLayer):
        for module in policy.modules() if layer else ():
            if isinstance(module, TrainableTokensLayer):
                module.__class__ = layer
        logits = policy.network(input_ids=ids).logits
        grads = torch.autograd.grad(logits.square().sum(), list(trained(policy).values()))
        results.append([logits, *grads])
    for ours, theirs in zip(*results):
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_merging_by_peft_gives_the_same_policy(tmp_path):
    policy = perturbed(Policy(save_tiny(tmp_path, "llama", tied=False), adapter=LoRA(rank=2)).load())
    rollouts = sampled(policy)
    before = policy.score(rollouts).logprobs.detach()
    merged = policy.model.merge_and_unload()
    torch.testing.assert_close(PackedGroups()(merged, rollouts).logprobs, before, atol=2e-5, rtol=1e-5)


def check_scoring(policy, scoring):
    rollouts = sampled(policy)
    expected, expected_grads = gradients(policy, rollouts, PromptCopies())
    scores, grads = gradients(policy, rollouts, scoring)
    torch.testing.assert_close(scores.logprobs, expected.logprobs, atol=3e-5, rtol=1e-5)
    torch.testing.assert_close(scores.entropy, expected.entropy, atol=3e-5, rtol=1e-5)
    mask = rollouts.answer_mask
    torch.testing.assert_close(scores.baseline_logprobs[mask], expected.baseline_logprobs[mask], atol=3e-5, rtol=1e-5)
    for name, grad in expected_grads.items():
        assert (grads[name] - grad).norm() <= 1e-5 * grad.norm() + 1e-9, name


@pytest.mark.parametrize("scoring", [SharedPrompt(), PromptTree(), PackedGroups()])
def test_scoring_is_that_of_copies(tiny_dir, scoring):
    check_scoring(perturbed(Policy(tiny_dir, adapter=LoRA(rank=2)).load()), scoring)


def test_prompts_are_shared_by_default(llama_dir):
    policy = Policy(llama_dir, adapter=LoRA(rank=2)).load()
    assert isinstance(policy.scoring.choose(policy.network, 99), PackedGroups)
    checkpointing = perturbed(Policy(llama_dir, adapter=LoRA(rank=2), activation_checkpointing=True).load())
    assert isinstance(checkpointing.scoring.choose(checkpointing.network, 99), PackedGroups)
    for forward in (PackedGroups(), PromptTree()):
        check_scoring(checkpointing, forward)
    assert gradients(checkpointing, sampled(checkpointing))[1].keys() == trained(checkpointing).keys()


def test_the_head_never_gives_all_logits(llama_dir, monkeypatch):
    """With a trained row in a frozen head the log-probs come in chunks, as without an adapter."""
    policy = perturbed(Policy(llama_dir, adapter=LoRA(rank=2)).load())
    rollouts = sampled(policy)
    expected, expected_grads = gradients(policy, rollouts)
    monkeypatch.setattr("nrt_lightning.models.scoring.base.DENSE", 0)
    monkeypatch.setattr("nrt_lightning.models.scoring.base.token_logprobs", None)
    scores, grads = gradients(policy, rollouts)
    torch.testing.assert_close(scores.logprobs, expected.logprobs)
    for name, grad in expected_grads.items():
        torch.testing.assert_close(grads[name], grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("quantization", [None, FourBit()])
@pytest.mark.parametrize("settings", [{"dora": True}, {"rslora": True}, {"dropout": 0.5}])
def test_variants_train(llama_dir, settings, quantization):
    policy = Policy(llama_dir, adapter=LoRA(rank=2, **settings), quantization=quantization).load()
    base = Policy(llama_dir, quantization=quantization).load()
    rollouts = sampled(base)
    torch.testing.assert_close(policy.score(rollouts).logprobs, base.score(rollouts).logprobs, atol=5e-5, rtol=1e-4)
    assert all(grad.isfinite().all() for grad in gradients(policy, rollouts)[1].values())


def test_rslora_scales_by_the_root_of_the_rank(llama_dir):
    layers = [
        next(m for m in Policy(llama_dir, adapter=LoRA(rank=4, alpha=8, rslora=r)).load().modules() if hasattr(m, "r"))
        for r in (False, True)
    ]
    assert [layer.scaling["default"] for layer in layers] == [2.0, 4.0]


def test_the_adapter_has_its_own_dtype(llama_dir):
    policy = Policy(llama_dir, dtype="bfloat16", adapter=LoRA(rank=2)).load()
    assert {p.dtype for p in trained(policy).values()} == {torch.float32}
    assert policy.network.get_input_embeddings().original_module.weight.dtype == torch.bfloat16
    assert policy.score(sampled(policy)).logprobs.isfinite().all()
    half = Policy(llama_dir, dtype="bfloat16", adapter=LoRA(rank=2, dtype="bfloat16")).load()
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["q_prj"], r"\['q_prj'\].*LlamaForCausalLM.*down_proj, gate_proj.*q_proj"),
        (["q_proj", "c_attn"], r"\['c_attn'\]"),
        (["lm_head"], r"\['lm_head'\]"),
        ([], r"\[\]"),
    ],
)
def test_targets_that_match_nothing_are_refused_before_weights_are_read(llama_dir, monkeypatch, targets, message):
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)
    with pytest.raises(InputError, match=rf"adapter\.targets {message}"):
        Policy(llama_dir, adapter=LoRA(targets=targets))


@pytest.mark.parametrize("settings", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(InputError, match=r"adapter\.rank.*alpha.*dropout"):
        LoRA(**settings)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: LoRA(dtype="float8"), "adapter.dtype"),
        (lambda: FourBit(quant_type="int4"), "quantization.quant_type"),
        (lambda: FourBit(compute_dtype="float8"), "quantization.compute_dtype"),
        (lambda: FourBit(storage_dtype="int4"), "quantization.storage_dtype"),
        (lambda: Policy(BASE, dtype="half"), "policy.dtype"),
        (lambda: Policy(BASE, weights="rnadom"), "policy.weights"),
    ],
)
def test_names_that_are_not_known_are_refused_with_those_that_are(make, field):
    with pytest.raises(InputError, match=rf"{field}='\w+'.*'\w+', '\w+'"):
        make()


def test_without_peft_the_installation_is_named(monkeypatch):
    monkeypatch.setattr("nrt_lightning.models.adapters.extras.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"LoRA.*peft.*pip install 'nrt-lightning\[qlora\]'"):
        Policy(BASE, adapter=LoRA())


def test_state_holds_what_is_trained_alone():
    policy = perturbed(Policy(BASE, adapter=LoRA(rank=2)).load())
    state = policy.state_dict()
    assert state.keys() == trained(policy).keys()
    other = Policy(BASE, adapter=LoRA(rank=2)).load()
    holder = nn.ModuleDict({"first": nn.Linear(1, 1), "policy": other})
    with pytest.raises(RuntimeError, match=r"Missing key.*first\.weight"):  # others are as strict as ever
        holder.load_state_dict({f"policy.{name}": value for name, value in state.items()})
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), other.parameters()))
    missing = dict(list(state.items())[1:])
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict(missing)


EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "num_local_experts": 4, "moe_intermediate_size": 48}


@pytest.mark.filterwarnings("ignore")
def test_experts_that_are_not_adapted_are_named_with_their_share(caplog):
    policy = build("gpt_oss", EXPERTS, adapter=LoRA(rank=2))
    base = {n: p for n, p in policy.network.named_parameters() if not p.requires_grad and p.dim() > 1
            and "embed" not in n and "head" not in n and not n.endswith("bias")}  # fmt: skip
    share = 100 * sum(p.numel() for n, p in base.items() if "base_layer" in n) / sum(p.numel() for p in base.values())
    assert f"all-linear adapts {share:.3g} % of the weights. Left out: GptOssExperts.gate_up_proj" in caplog.text
    caplog.clear()
    build("llama", adapter=LoRA(rank=2))
    assert "all-linear adapts" not in caplog.text


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_experts_that_are_adapted_are_merged(family, caplog):
    policy = perturbed(build(family, EXPERTS, adapter=LoRA(rank=2)))
    assert "all-linear adapts" not in caplog.text, "nothing is left out"
    rollouts = sampled(policy)
    merged = build(family, EXPERTS)
    merged.network.load_state_dict(dict(plain_weights(policy)), strict=True)
    with torch.no_grad():
        expected = policy.score(rollouts).logprobs
        torch.testing.assert_close(merged.score(rollouts).logprobs, expected, atol=1e-4, rtol=1e-4)
        base = build(family, EXPERTS).score(rollouts).logprobs
    assert (base - expected).abs().max() > 0.01


@pytest.mark.filterwarnings("ignore")
def test_what_peft_cannot_do_with_experts_is_an_error_of_the_settings():
    with pytest.raises(InputError, match=r"policy.adapter LoRA does not fit Mixtral\w+: .*dropout"):
        build("mixtral", EXPERTS, adapter=LoRA(rank=2, dropout=0.1))


def test_experts_that_stay_in_16_bits_are_named_with_their_share(caplog):
    pytest.importorskip("bitsandbytes")
    model = build("mixtral").network
    whole = left_out(model, linear_weights(model))
    quantized = said(FourBit().quantize(model))
    assert left_out(quantized, linear_weights(quantized)) == whole, "packed weights are counted as what they are"
    assert f"policy.quantization stores in fewer bits {whole}" in caplog.text
    assert "MixtralExperts.down_proj" in whole


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["llama4_text", "phimoe"])
def test_routers_that_are_linear_in_name_only_are_left_alone(family, caplog):
    """They return scores and choices; an adapter of the product would not know what to add to."""
    shape = {"num_local_experts": 2, "num_experts_per_tok": 1, "intermediate_size_mlp": 48}
    policy = build(family, shape, adapter=LoRA(rank=2))
    rollouts = sampled(policy)
    policy.score(rollouts).logprobs.sum().backward()
    names = trained(policy)
    assert names
    assert not any("router" in name for name in names)
    assert "Router.weight" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_updates_are_those_of_peft_without_scaled_and_converted_copies(llama_dir, monkeypatch, dtype):
    """peft scales the outputs, and converts inputs to the factors' float32, which autocast converts back."""
    half = dtype == torch.bfloat16
    policies = [perturbed(Policy(llama_dir, dtype=str(dtype)[6:], adapter=LoRA(rank=2)).load())]
    monkeypatch.setattr(low_rank, "fuse_updates", lambda model: None)
    policies.append(perturbed(Policy(llama_dir, dtype=str(dtype)[6:], adapter=LoRA(rank=2)).load()))
    results, counts = [], []
    for policy in policies:
        with Operations() as operations, torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = policy.network(input_ids=torch.arange(4, 12).view(2, 4), use_cache=False).logits.float()
            (logits.square().mean() + logits.mean()).backward()
        gradients = {name: p.grad for name, p in policy.named_parameters() if "lora_" in name}
        results.append((logits, gradients))
        counts.append(operations.counts)
    (mine, gradients), (expected, others) = results
    torch.testing.assert_close(mine, expected, atol=0.1 if half else 1e-5, rtol=0.03 if half else 1e-5)
    for name, gradient in gradients.items():
        assert (gradient - others[name]).norm() <= (0.1 if half else 1e-5) * others[name].norm() + 1e-6, name
    layers = sum("lora_A" in name for name in gradients)
    assert counts[1]["_to_copy"] - counts[0]["_to_copy"] >= (3 * layers if half else 0)
    assert counts[1]["add"] - counts[0]["add"] == layers
