"""Advantages of steps: what each adds to the confidence in the answer."""

from __future__ import annotations

import statistics

import pytest
import torch
from short_runs import Recorder, nrt_module, registers
from tiny import sampled
from torch.utils.flop_counter import FlopCounterMode

from nrt_lightning import AtText, EveryTokens, InputError, Lines, Policy, Sentences, StepGains
from nrt_lightning.models.scoring.after_steps import answers_after_steps, by_branches, by_copies
from nrt_lightning.structures import Steps

ENDS = [[0, 2, 4, 9], [0, 1], [0], [0, 3, 6, 9], [0, 9], [0, 5], [0, 9], [0, 1, 2], [0, 4]]


def ends_of(rollouts):
    lengths = rollouts.segments.trace_mask.sum(dim=1).tolist()
    return [sorted({min(end, length) for end in ends}) for ends, length in zip(ENDS, lengths, strict=True)]


def test_one_pass_reads_the_answer_as_separate_passes_do(tiny_dir):
    policy = Policy(tiny_dir).load().eval()
    rollouts = sampled(policy)
    ends = ends_of(rollouts)
    found, expected = by_branches(policy.network, rollouts, ends), by_copies(policy, rollouts, ends)
    for row, cuts in enumerate(ends):
        assert found[row] == pytest.approx(expected[row], abs=1e-3)
        for end, value in zip(cuts, found[row], strict=True):
            prompt = rollouts.group_ids[row]
            asked = rollouts.prompt_ids[prompt][rollouts.prompt_mask[prompt]]
            trace = rollouts.completion_ids[row][rollouts.segments.trace_mask[row]][:end]
            answer = rollouts.answer_ids[prompt][rollouts.answer_mask[prompt]]
            text = torch.cat([asked, trace, torch.tensor(rollouts.marker_ids), answer])
            with torch.no_grad():
                logprobs = policy.network(text[None]).logits[0, -len(answer) - 1 : -1].log_softmax(-1)
            assert value == pytest.approx(logprobs.gather(-1, answer[:, None]).sum().item(), abs=1e-3)


def test_one_pass_costs_less_than_a_completion_for_each_step(policy):
    rollouts = sampled(policy, group_size=4, max_new_tokens=24)
    lengths = rollouts.segments.trace_mask.sum(dim=1).tolist()
    ends = [[0, *range(2, length, 2), length] for length in lengths]
    answers_after_steps(policy, rollouts, ends)  # the model is tried once

    def flops(read) -> int:
        with FlopCounterMode(display=False) as counter:
            read()
        return counter.get_total_flops()

    one, copies = (
        flops(lambda: by_branches(policy.network, rollouts, ends)),
        flops(lambda: by_copies(policy, rollouts, ends)),
    )
    scoring = flops(lambda: policy.score(rollouts))
    assert one < 0.8 * copies
    read = sum(len(each) for each in ends) * (len(rollouts.marker_ids) + int(rollouts.answer_mask.sum(1).max()))
    tokens = int(rollouts.segments.completion_mask.sum()) + int(rollouts.prompt_mask.sum())
    assert one < scoring * (1 + 2.5 * read / tokens), "about the tokens that are read"


def advantages_in_plain_python(values, before, counts, discount):
    """Of one group: values after each step, of each trace."""
    returns = []
    for row, first in zip(values, before, strict=True):
        gains = [b - a for a, b in zip([first, *row], row, strict=False)]
        total, found = 0.0, []
        for gain in reversed(gains):
            total = gain + discount * total
            found.insert(0, total)
        returns.append(found)
    pooled = [x for row in returns for x in row]
    mean, std = statistics.mean(pooled), statistics.stdev(pooled)
    return [
        [(x - mean) / std for x, count in zip(row, n, strict=True) for _ in range(count)]
        for row, n in zip(returns, counts)
    ]


@pytest.mark.parametrize("discount", [0.0, 0.5, 1.0])
def test_advantages_equal_the_formulas(policy, discount):
    rollouts = sampled(policy, group_size=3)
    rollouts = rollouts.select(torch.tensor([0]), torch.tensor([0, 1, 2]))
    lengths = rollouts.segments.trace_mask.sum(dim=1).tolist()
    marker = rollouts.segments.marker_mask.sum(dim=1).tolist()
    ends = [sorted({min(3, length), length}) for length in lengths]
    values = [[-1.0 - 0.3 * n - 0.7 * s for s in range(len(each))] for n, each in enumerate(ends)]
    before = [-2.0, -2.0, -2.0]
    pad = lambda rows, fill=0: torch.tensor([[*row, *[fill] * (2 - len(row))] for row in rows])  # noqa: E731
    rollouts.steps = Steps(pad(ends), pad([[1] * len(e) for e in ends]).bool(), pad(values, 0.0), torch.tensor(before))
    credit = StepGains(discount=discount, coef=0.5, trace_coef=2.0)
    found = credit(torch.tensor([1.0, -1.0, 0.5]), rollouts, rollouts.completion_ids.shape[1])
    counts = [[b - a for a, b in zip([0, *each], each)] for each in ends]
    for n, count in enumerate(counts):
        count[-1] += marker[n]  # the marker belongs to the last step
    expected = advantages_in_plain_python(values, before, counts, discount)
    for n, whole in enumerate([1.0, -1.0, 0.5]):
        row = [2.0 * whole + 0.5 * x for x in expected[n]]
        assert found[n, : len(row)].tolist() == pytest.approx(row, abs=1e-5)
        assert found[n, len(row) :].tolist() == pytest.approx([2.0 * whole] * (found.shape[1] - len(row)))


def test_gains_add_up_to_that_of_the_trace(policy):
    rollouts = sampled(policy)
    steps = StepGains(EveryTokens(2)).measure(policy, rollouts)
    last = steps.values.gather(1, (steps.mask.sum(1, keepdim=True) - 1).clamp(min=0))[:, 0]
    known = steps.mask.any(dim=1)
    torch.testing.assert_close(steps.gains.sum(1)[known], (last - steps.before)[known], atol=1e-4, rtol=1e-4)


def test_segmentations(policy):
    ids = policy.tokenizer("b=1. c=2\nd", add_special_tokens=False).input_ids
    assert EveryTokens(4).ends(ids, policy.tokenizer) == [4, 8, 10]
    assert Sentences().ends(ids, policy.tokenizer) == [5, 9, 10]
    assert Lines().ends(ids, policy.tokenizer) == [9, 10]
    assert AtText(["=1", "=2"]).ends(ids, policy.tokenizer) == [3, 8, 10]
    assert Lines().ends([], policy.tokenizer) == []
    many = StepGains(EveryTokens(1), max_steps=3)
    assert many.cut(ids, policy) == [3, 6, 10]


def test_it_is_said_once_that_no_trace_is_cut(policy, caplog):
    rollouts = sampled(policy, group_size=4)
    for segmentation in (EveryTokens(2), EveryTokens(1000), EveryTokens(1000)):
        StepGains(segmentation).measure(policy, rollouts)
    (said,) = [record.getMessage() for record in caplog.records]
    for word in ("step_credit", "EveryTokens(n=1000)", "12 traces", "train/steps", "segmentation"):
        assert word in said


def test_a_text_that_the_tokenizer_cannot_write_is_refused_before_training():
    with pytest.raises(InputError, match=r"segmentation.*'%'"):
        nrt_module(step_credit=StepGains(AtText(["%"])))
    with pytest.raises(InputError, match=r"texts is empty"):
        AtText([])
    with pytest.raises(InputError, match=r"segmentation.n=0"):
        EveryTokens(0)


def test_a_run_trains_by_step(quiet_trainer):
    recorder = Recorder()
    module = nrt_module(step_credit=StepGains(EveryTokens(3)), max_tokens_per_micro_batch=120)
    quiet_trainer(max_steps=2, callbacks=[recorder]).fit(module, registers(val=None))
    rollouts = recorder.batches[0].rollouts
    assert recorder.advantages[0].shape == rollouts.completion_ids.shape
    assert recorder.ratios == [1.0, 1.0]
    assert recorder.metrics[0]["train/steps"] > 1
