"""Models with states are sampled and scored as one plain forward of each sequence has it, or refused."""

import pytest
import torch
from tiny import ANSWERS, QUESTIONS, make_prompts

from benchmarks.architectures import build
from nrt_lightning import NRTModule, PlainTemplate, QADataModule, Sampling, SFTModule, TransformersEngine
from nrt_lightning.models.scoring.recurrence import recurrent
from nrt_lightning.rollouts import GenerationRequest, assemble
from nrt_lightning.rollouts.recurrent_decoding import EXACT

FAMILIES = ["qwen3_5_text", "granitemoehybrid", "lfm2", "falcon_h1", "jamba", "mamba", "mamba2", "rwkv"]
MORE = ["qwen3_next", "nemotron_h", "bamba", "olmo_hybrid", "xlstm", "recurrent_gemma", "minimax"]


def plain_logprobs(policy, ids):
    """Log-probs of every token after the first, by one forward pass without cache and padding."""
    with torch.no_grad():
        logits = policy.network(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return logits.float().log_softmax(-1)[:-1].gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]


@pytest.fixture(params=[*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def recurrent_policy(request):
    return build(request.param)


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
    policy = build("rwkv")
    request = make_prompts(policy, QUESTIONS, ANSWERS)
    TransformersEngine().generate(policy, GenerationRequest(request.prompt_ids, request.prompt_mask, 2, policy.eos_ids))
    assert EXACT[policy.network] is False
    assert "RwkvForCausalLM does not decode with its state" in caplog.text


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["qwen3_5_text", "mamba", "rwkv"])
@pytest.mark.parametrize("module", [NRTModule, SFTModule])
def test_training_and_validation(family, module, quiet_trainer):
    settings = {"sampling": Sampling(group_size=2, max_trace_tokens=6)} if module is NRTModule else {}
    trained = module(build(family), **settings)
    rows = [{"question": q, "answer": a} for q, a in zip(QUESTIONS, ANSWERS, strict=True)]
    data = QADataModule(rows, rows, template=PlainTemplate(), batch_size=3)
    before = trained.policy.network.get_output_embeddings().weight.detach().clone()
    trainer = quiet_trainer(max_steps=2, limit_val_batches=1, val_check_interval=1)
    trainer.fit(trained, data)
    after = trained.policy.network.get_output_embeddings().weight
    assert after.isfinite().all()
    assert not torch.equal(after, before)
    assert 0 <= float(trainer.callback_metrics["val/confidence"]) <= 1
