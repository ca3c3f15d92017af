"""Models with states are sampled and scored as one plain forward of each sequence has it, or refused."""

import pytest
import torch
from tiny import ANSWERS, BASE, QUESTIONS, make_prompts
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from nrt_lightning import NRTModule, PlainTemplate, Policy, QADataModule, Sampling, SFTModule, TransformersEngine
from nrt_lightning.models.scoring.recurrence import recurrent
from nrt_lightning.rollouts import GenerationRequest, assemble
from nrt_lightning.rollouts.recurrent_decoding import EXACT

SHAPE = {"vocab_size": 72, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0,
         "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False}  # fmt: skip
LINEAR = {"layer_types": ["linear_attention", "full_attention"]}
HEADS = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "num_local_experts": 2}
FAMILIES = {
    "qwen3_5_text": LINEAR | HEADS,
    "qwen3_next": LINEAR | HEADS | EXPERTS | {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    "granitemoehybrid": MAMBA | {"layer_types": ["mamba", "attention"], "num_local_experts": 0,
                                 "shared_intermediate_size": 48},
    "nemotron_h": {"layers_block_type": ["mamba", "attention"], "mamba_num_heads": 4, "mamba_head_dim": 16,
                   "ssm_state_size": 8, "n_groups": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3, "block_auto_adjust_ff_dim": False},
    "falcon_h1": MAMBA | {"mamba_d_ssm": 64},
    "bamba": MAMBA | {"attn_layer_indices": [1]},
    "jamba": EXPERTS | {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
                        "expert_layer_offset": 1, "mamba_d_state": 8, "mamba_dt_rank": 4, "use_mamba_kernels": False},
    "olmo_hybrid": LINEAR,
    "mamba": {"state_size": 8, "time_step_rank": 4},
    "mamba2": {"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1},
    "rwkv": {"attention_hidden_size": 32},
    "xlstm": {"num_heads": 2, "num_blocks": 2},
    "recurrent_gemma": {"lru_width": 32, "block_types": ["recurrent", "attention"], "attention_window_size": 64},
    "minimax": LINEAR | EXPERTS,
}  # fmt: skip


def policy_of(family):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SHAPE | FAMILIES[family])
    config.initializer_range = 0.3
    model = AutoModelForCausalLM.from_config(config)
    return Policy(model, tokenizer=AutoTokenizer.from_pretrained(BASE)).load().eval()


def plain_logprobs(policy, ids):
    """Log-probs of every token after the first, by one forward pass without cache and padding."""
    with torch.no_grad():
        logits = policy.network(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return logits.float().log_softmax(-1)[:-1].gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]


@pytest.fixture(params=FAMILIES)
def recurrent_policy(request):
    return policy_of(request.param)


@pytest.mark.filterwarnings("ignore")
def test_sampled_and_scored_as_by_plain_forwards(recurrent_policy):
    policy = recurrent_policy
    assert recurrent(policy.network)
    prompts = make_prompts(policy, QUESTIONS, ANSWERS)  # of different lengths
    stops = [*policy.markup.marker_ids, *policy.eos_ids]
    request = GenerationRequest(prompts.prompt_ids, prompts.prompt_mask, 8, stops, group_size=2, seed=1, logprobs=True)
    out = TransformersEngine().generate(policy, request)
    assert len(out) == 6
    for row in range(6):
        prompt = prompts.prompt_ids[row // 2][prompts.prompt_mask[row // 2]].tolist()
        written = out.token_ids[row][out.token_mask[row]].tolist()
        expected = plain_logprobs(policy, prompt + written)[len(prompt) - 1 :]
        torch.testing.assert_close(out.logprobs[row][: len(written)], expected, atol=1e-3, rtol=1e-3)
    rollouts = assemble(prompts, out, policy.markup)
    with torch.no_grad():
        scores = policy.score(rollouts, baseline=True)
    for row in range(6):
        prompt = prompts.prompt_ids[row // 2][prompts.prompt_mask[row // 2]].tolist()
        whole = rollouts.completion_ids[row][rollouts.segments.completion_mask[row]].tolist()
        expected = plain_logprobs(policy, prompt + whole)[len(prompt) - 1 :]
        torch.testing.assert_close(scores.logprobs[row][: len(whole)], expected, atol=1e-3, rtol=1e-3)


def test_a_state_that_is_wrong_is_not_used(caplog):
    policy = policy_of("rwkv")
    request = make_prompts(policy, QUESTIONS, ANSWERS)
    TransformersEngine().generate(policy, GenerationRequest(request.prompt_ids, request.prompt_mask, 2, policy.eos_ids))
    assert EXACT[policy.network] is False
    assert "RwkvForCausalLM does not decode with its state" in caplog.text


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["qwen3_5_text", "mamba", "rwkv"])
@pytest.mark.parametrize("module", [NRTModule, SFTModule])
def test_training_and_validation(family, module, quiet_trainer):
    settings = {"sampling": Sampling(group_size=2, max_trace_tokens=6)} if module is NRTModule else {}
    trained = module(policy_of(family), **settings)
    rows = [{"question": q, "answer": a} for q, a in zip(QUESTIONS, ANSWERS, strict=True)]
    data = QADataModule(rows, rows, template=PlainTemplate(), batch_size=3)
    before = trained.policy.network.get_output_embeddings().weight.detach().clone()
    trainer = quiet_trainer(max_steps=2, limit_val_batches=1, val_check_interval=1)
    trainer.fit(trained, data)
    after = trained.policy.network.get_output_embeddings().weight
    assert after.isfinite().all()
    assert not torch.equal(after, before)
    assert 0 <= float(trainer.callback_metrics["val/confidence"]) <= 1
