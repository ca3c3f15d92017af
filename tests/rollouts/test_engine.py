import dataclasses

import pytest
import torch
from tiny import ANSWERS, QUESTIONS, make_prompts

from nrt_lightning import InputError, Policy, TransformersEngine
from nrt_lightning.models.policy.vocabulary import unused_ids
from nrt_lightning.rollouts import GenerationRequest


def request_for(policy, group_size=4, **settings):
    prompts = make_prompts(policy, QUESTIONS, ANSWERS)
    defaults = {
        "max_new_tokens": 12,
        "stop_ids": [policy.markup.marker_ids[0], *policy.eos_ids],
        "logprobs": True,
        "seed": 3,
    }
    return GenerationRequest(prompts.prompt_ids, prompts.prompt_mask, group_size=group_size, **defaults | settings)


def conditional_logprobs(policy, request, generations, row):
    """Log-probs of a row's tokens from one forward pass without cache and padding."""
    prompt = row // request.group_size
    ids = request.prompt_ids[prompt][request.prompt_mask[prompt]]
    written = generations.token_ids[row][generations.token_mask[row]]
    with torch.no_grad():
        logits = policy.network(torch.cat([ids, written])[None]).logits[0, len(ids) - 1 : -1]
    return logits.log_softmax(-1), written


def test_rows_end_with_a_stop_token_or_at_the_limit(policy):
    request = request_for(policy, group_size=16)
    out = TransformersEngine().generate(policy, request)
    assert len(out) == 3 * 16
    lengths = out.token_mask.sum(1)
    assert out.stopped.any(), "the embedded base ends some texts within 12 tokens"
    assert not out.stopped.all()
    for row in range(len(out)):
        written = out.token_ids[row][out.token_mask[row]].tolist()
        assert out.token_mask[row, : lengths[row]].all(), "no gaps"
        assert out.stopped[row] == (written[-1] in request.stop_ids)
        assert not set(written[:-1]) & set(request.stop_ids)
        assert out.stopped[row] or len(written) == 12


def test_sampling_log_probs_are_those_of_a_plain_forward(tiny_dir):
    policy = Policy(tiny_dir).load()
    policy.eval()
    request = request_for(policy, temperature=0.7)
    out = TransformersEngine().generate(policy, request)
    for row in range(len(out)):
        _, written = conditional_logprobs(policy, request, out, row)
        prompt = request.prompt_ids[row // 4][request.prompt_mask[row // 4]]
        with torch.no_grad():
            logits = policy.network(torch.cat([prompt, written])[None]).logits[0, len(prompt) - 1 : -1]
        logits[:, unused_ids(policy)] = -torch.inf
        expected = (logits / 0.7).log_softmax(-1).gather(-1, written[:, None])[:, 0]
        torch.testing.assert_close(out.logprobs[row][out.token_mask[row]], expected, atol=3e-5, rtol=1e-4)


def test_greedy_equals_transformers_generate(tiny_dir):
    policy = Policy(tiny_dir).load()
    request = request_for(policy, group_size=1, temperature=0.0)
    ours = TransformersEngine().generate(policy, request)
    policy.eval()
    theirs = policy.network.generate(
        input_ids=request.prompt_ids,
        attention_mask=request.prompt_mask.long(),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=request.stop_ids,
        pad_token_id=0,
        suppress_tokens=unused_ids(policy) or None,
    )[:, request.prompt_ids.shape[1] :]
    assert torch.equal(ours.token_ids, theirs[:, : ours.token_ids.shape[1]])


@pytest.mark.parametrize(
    "engine", [TransformersEngine(drop_share=1.0), TransformersEngine(check_every=5), TransformersEngine(max_rows=4)]
)
def test_settings_for_speed_and_memory_change_no_token(policy, engine):
    request = request_for(policy, max_new_tokens=24)
    plain = TransformersEngine(drop_share=0.0).generate(policy, request)
    other = engine.generate(policy, request)
    assert torch.equal(plain.token_ids, other.token_ids)
    assert torch.equal(plain.token_mask, other.token_mask)
    torch.testing.assert_close(plain.logprobs, other.logprobs)


def test_a_named_prompt_draws_the_same_in_any_batch(policy):
    together = request_for(policy, names=["a", "b", "c"])
    alone = dataclasses.replace(
        together, prompt_ids=together.prompt_ids[1:2], prompt_mask=together.prompt_mask[1:2], names=["b"]
    )
    engine = TransformersEngine()
    first, second = engine.generate(policy, together).select(4, 8), engine.generate(policy, alone)
    assert first.token_ids[first.token_mask].tolist() == second.token_ids[second.token_mask].tolist()
    twice = engine.generate(policy, dataclasses.replace(together, names=["b", "b", "b"]))
    assert not torch.equal(twice.token_ids[:4], twice.token_ids[4:8])


def test_draws_depend_on_the_seed_alone(policy):
    engine, request = TransformersEngine(), request_for(policy)
    first = engine.generate(policy, request)
    torch.manual_seed(99)
    again = engine.generate(policy, request)
    other = engine.generate(policy, dataclasses.replace(request, seed=4))
    assert torch.equal(first.token_ids, again.token_ids)
    assert first.token_ids.shape != other.token_ids.shape or not torch.equal(first.token_ids, other.token_ids)


def test_the_global_generator_is_left_alone(policy):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    TransformersEngine().generate(policy, request_for(policy))
    assert torch.equal(torch.rand(3), expected)


def test_banned_tokens_are_never_written(policy):
    request = request_for(policy, group_size=16, stop_ids=[policy.markup.marker_ids[0]], banned_ids=policy.eos_ids)
    out = TransformersEngine().generate(policy, request)
    assert not torch.isin(out.token_ids[out.token_mask], torch.tensor(policy.eos_ids)).any()


def test_mode_is_restored(policy):
    TransformersEngine().generate(policy, request_for(policy))
    assert policy.network.training


def test_progress_counts_up(policy):
    seen = []
    TransformersEngine().generate(policy, request_for(policy), lambda *progress: seen.append(progress))
    assert [step for step, _, _ in seen] == list(range(1, len(seen) + 1))
    rows = [still for _, _, still in seen]
    assert rows == sorted(rows, reverse=True)


def test_no_new_tokens(policy):
    out = TransformersEngine().generate(policy, request_for(policy, max_new_tokens=0))
    assert out.token_ids.shape == (12, 0)


def test_settings_are_checked():
    with pytest.raises(InputError, match=r"engine\.drop_share is 2"):
        TransformersEngine(drop_share=2)
    with pytest.raises(InputError, match=r"engine\.max_rows"):
        TransformersEngine(max_rows=-1)
