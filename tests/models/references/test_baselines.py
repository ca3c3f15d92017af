import json
import multiprocessing

import pytest
import torch
from tiny import ANSWERS, BASE, QUESTIONS, make_prompts, sampled, save_tiny

from nrt_lightning import (
    FrozenReference,
    InitialBaseline,
    InputError,
    NoReference,
    Policy,
    PolicyBaseline,
    ReferenceBaseline,
)
from nrt_lightning.models.policy.digests import weights_digest
from nrt_lightning.models.references.answer_cache import AnswerCache
from nrt_lightning.rollouts import GenerationRequest, TransformersEngine, assemble


def rollouts_of(policy, questions, answers):
    prompts = make_prompts(policy, questions, answers)
    stop = [policy.markup.marker_ids[0], *policy.eos_ids]
    request = GenerationRequest(prompts.prompt_ids, prompts.prompt_mask, 4, stop, 2)
    return assemble(prompts, TransformersEngine().generate(policy, request), policy.markup)


def loaded(policy, directory, precision="32-true"):
    scorer = InitialBaseline()
    scorer.load(policy, NoReference(), directory, precision)
    return scorer


def moved(policy):
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.05)


@pytest.mark.parametrize("scorer", ["initial", "reference"])
def test_both_are_the_policy_before_training(policy, tmp_path, scorer):
    rollouts = sampled(policy)
    before = policy.score(rollouts, baseline=True).baseline_logprobs
    made = InitialBaseline() if scorer == "initial" else ReferenceBaseline()
    made.load(policy, FrozenReference(), tmp_path, "32-true")
    moved(policy)
    torch.testing.assert_close(made.logprobs(rollouts), before)
    assert not torch.allclose(policy.score(rollouts, baseline=True).baseline_logprobs, before)


@pytest.mark.parametrize("how", ["live", "random"])
def test_initial_weights_that_cannot_be_read_again_are_copied(policy, tmp_path, how):
    if how == "live":
        policy = Policy(policy.network, tokenizer=policy.tokenizer)
    else:
        policy = Policy(BASE, weights="random").load()
    rollouts = sampled(policy)
    before = policy.score(rollouts, baseline=True).baseline_logprobs
    scorer = loaded(policy, tmp_path)
    moved(policy)
    torch.testing.assert_close(scorer.logprobs(rollouts), before)


def test_second_run_reads_no_model_and_the_very_same_values(policy, tmp_path):
    rollouts = sampled(policy)
    first = loaded(policy, tmp_path).logprobs(rollouts)
    again = loaded(Policy(BASE).load(), tmp_path)
    assert torch.equal(again.logprobs(rollouts), first)
    assert not again.initial.frozen, "no second model"


def test_what_is_not_on_disk_is_scored_and_nothing_twice(policy, tmp_path, monkeypatch):
    scorer = loaded(policy, tmp_path)
    alone = scorer.logprobs(rollouts_of(policy, QUESTIONS[:1], ANSWERS[:1]))
    calls, score = [], FrozenReference.logprobs
    monkeypatch.setattr(FrozenReference, "logprobs", lambda self, r: calls.append(len(r)) or score(self, r))
    together = scorer.logprobs(rollouts_of(policy, QUESTIONS, ANSWERS))
    scorer.logprobs(rollouts_of(policy, QUESTIONS[1:], ANSWERS[1:]))
    assert len(calls) == 1
    assert torch.equal(together[0, : alone.shape[1]], alone[0]), "the value on disk, not one computed anew"


def test_another_model_row_template_or_precision_is_scored_anew(policy, tmp_path):
    scorer = loaded(policy, tmp_path)
    scorer.logprobs(rollouts_of(policy, QUESTIONS[:1], ANSWERS[:1]))
    for question, answer in ((QUESTIONS[0], ANSWERS[1]), (f"q {QUESTIONS[0]}", ANSWERS[0])):
        before = len(scorer.cache)
        scorer.logprobs(rollouts_of(policy, [question], [answer]))
        assert len(scorer.cache) == before + 1
    assert len(loaded(policy, tmp_path, "bf16-mixed").cache) == 0
    moved(policy)
    assert len(loaded(policy, tmp_path).cache) == 0
    assert len(loaded(Policy(BASE).load(), tmp_path).cache) == 3


def test_the_digest_is_of_the_weights_and_not_of_their_place(tmp_path):
    one, two = (Policy(save_tiny(tmp_path / name, "llama")).load() for name in "ab")
    assert weights_digest(one) == weights_digest(two)
    assert weights_digest(one) != weights_digest(Policy(BASE).load())


def test_a_broken_file_is_scored_again(policy, tmp_path, caplog):
    rollouts = sampled(policy)
    first = loaded(policy, tmp_path).logprobs(rollouts)
    (file,) = tmp_path.rglob("*.jsonl")
    file.write_bytes(file.read_bytes()[:50] + b"\n")
    again = loaded(policy, tmp_path)
    assert str(file) in caplog.text
    assert torch.equal(again.logprobs(rollouts), first)
    assert len(loaded(policy, tmp_path).cache) == 3, "written anew"


def write(directory):
    cache = AnswerCache(directory)
    for i in range(30):
        cache.add({f"{i:04x}": torch.full((3,), float(i)), f"{1000 + i:04x}": torch.full((2,), -1.0)})


def test_two_processes_may_write_at_once(tmp_path):
    fork = multiprocessing.get_context("fork")
    running = [fork.Process(target=write, args=(tmp_path,)) for _ in range(2)]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
        assert process.exitcode == 0
    cache = AnswerCache(tmp_path)
    assert len(cache) == 60
    assert all(torch.equal(cache[f"{i:04x}"], torch.full((3,), float(i))) for i in range(30))


def test_a_process_writes_one_file_and_reads_what_is_new(tmp_path, monkeypatch):
    mine, theirs = AnswerCache(tmp_path), AnswerCache(tmp_path)
    parsed, loads = [], json.loads
    monkeypatch.setattr(json, "loads", lambda line: parsed.append(line) or loads(line))
    for i in range(20):
        theirs.add({f"{i:04x}": torch.tensor([float(i)])})
        mine.refresh()
    assert len(mine) == 20
    assert len(list(tmp_path.iterdir())) == 1
    assert len(parsed) == 20, "every line once"


def test_values_are_kept_exactly(tmp_path):
    values = torch.randn(50).exp().neg()
    AnswerCache(tmp_path).add({"00": values, "01": torch.tensor([-torch.inf])})
    assert torch.equal(AnswerCache(tmp_path)["00"], values)
    assert torch.equal(AnswerCache(tmp_path)["01"], torch.tensor([-torch.inf]))


def test_values_of_another_process_are_found_without_scoring(policy, tmp_path):
    mine, theirs = loaded(policy, tmp_path), loaded(policy, tmp_path)
    rollouts = sampled(policy)
    expected = theirs.logprobs(rollouts)
    assert torch.equal(mine.logprobs(rollouts), expected)
    assert not mine.initial.frozen


def test_reference_baseline_without_a_reference_is_refused():
    with pytest.raises(InputError, match=r"ReferenceBaseline.*Set reference"):
        ReferenceBaseline().check(NoReference())


def test_only_the_policys_forward_pass_needs_no_scoring(policy, tmp_path):
    rollouts = sampled(policy)
    for scorer in (PolicyBaseline(), ReferenceBaseline(), InitialBaseline()):
        scorer.load(policy, FrozenReference(), tmp_path, "32-true")
        assert (scorer.logprobs(rollouts) is None) == scorer.from_policy_forward
