"""Exact cost of a step. FLOPs do not depend on the machine, so an increase is noticed at once."""

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import flop_counter, flop_phases
from benchmarks.run import Run
from benchmarks.run_ours import train
from benchmarks.workload import Workload, build_policy, fixed_rollouts
from nrt_lightning.models import PackedGroups, PromptCopies, PromptTree, SharedPrompt
from nrt_lightning.models.policy.modes import training_mode

SMALL = Workload(
    prompt_tokens=(30, 40),
    answer_tokens=(8, 24),
    group_size=4,
    trace_tokens=16,
    vocabulary=512,
    hidden=64,
    intermediate=128,
    layers=2,
    ends_after=0,  # all traces have full length, so what is drawn does not matter
)
# GFLOP of a step. Lower a number when a step becomes cheaper; raise one only with a reason.
STEP = {"rollout": 0.04536, "forward": 0.11095, "backward": 0.20562}


# Prompts twice as long as completions, eight of them: the shape of the benchmark of prefix sharing.
LONG_PROMPTS = dataclasses.replace(
    SMALL, prompt_tokens=(64, 64), answer_tokens=(16, 16), group_size=8, trace_tokens=15
)  # fmt: skip


# Widths and lengths of the 8B recipe by 1/32, which leaves the share of attention: a group of 8, longest traces.
RECIPE = dataclasses.replace(
    SMALL, prompt_tokens=(25,), answer_tokens=(4,), trace_tokens=64, group_size=8, vocabulary=1002, hidden=128,
    intermediate=448, layers=8, heads=4, kv_heads=1,
)  # fmt: skip


def gflop(forward, rollouts, baseline=True, counter=None, workload=SMALL, checkpointing=False) -> float:
    policy = build_policy(workload, scoring=forward)
    training_mode(policy.network, checkpointing=checkpointing, dropout=False)
    with counter or flop_counter() as counter:
        policy.score(rollouts, baseline=baseline).logprobs.sum().backward()
    return counter.get_total_flops() / 1e9


@pytest.fixture(scope="module")
def step():
    with flop_phases() as phases:
        train(Run(SMALL, steps=1), phases)
    return {name: flops / 1e9 for name, flops in phases.steps[-1].items()}


@pytest.mark.parametrize("phase", STEP)
def test_no_phase_of_a_step_grows_dearer(step, phase):
    assert step[phase] <= 1.02 * STEP[phase], f"{phase}: {step[phase]:.4f} GFLOP"


def test_nothing_else_multiplies_matrices(step):
    assert step["other"] == step["optimizer"] == 0


def test_every_sampled_token_is_counted():
    with flop_phases() as phases:
        sampled = train(Run(SMALL, steps=1), phases)
    assert sampled == [{"tokens": 2 * 4 * 16, "ended": 0}] * 2


@pytest.mark.parametrize(("forward", "share"), [(PackedGroups(), 0.46), (SharedPrompt(), 0.47), (PromptTree(), 0.71)])
def test_sharing_prompts_is_cheaper_than_copies(forward, share):
    rollouts = fixed_rollouts(LONG_PROMPTS)
    assert gflop(forward, rollouts, baseline=False) <= share * gflop(PromptCopies(), rollouts, baseline=False)


def test_under_activation_checkpointing_prompts_are_shared_without_the_dense_mask_of_a_tree():
    rollouts = fixed_rollouts(RECIPE)
    tree, packed = (
        gflop(forward, rollouts, False, workload=RECIPE, checkpointing=True)
        for forward in (PromptTree(), PackedGroups())
    )
    assert packed <= 0.7 * tree


def test_instructions_that_all_prompts_begin_with_cost_their_tokens_once():
    counts = []
    for rows in (4, 1):  # of what the prompts have beside the instructions
        work = dataclasses.replace(SMALL, prompt_tokens=(10,) * rows, answer_tokens=(4,) * rows, prefix=100)
        counter = FlopCounterMode(display=False)
        counts.append(gflop(PackedGroups(), fixed_rollouts(work), False, counter))
    work = dataclasses.replace(SMALL, prompt_tokens=(10,), answer_tokens=(4,), prefix=0)
    own = gflop(PackedGroups(), fixed_rollouts(work), False, FlopCounterMode(display=False))
    assert counts[0] == pytest.approx(counts[1] + 3 * own, rel=1e-2)


def test_packing_costs_no_padding():
    rollouts = fixed_rollouts(SMALL)
    assert gflop(PackedGroups(), rollouts) <= 0.87 * gflop(SharedPrompt(), rollouts)


def test_the_baseline_costs_a_forward_pass_of_the_answers():
    rollouts = fixed_rollouts(SMALL)
    with_baseline, without = (gflop(SharedPrompt(), rollouts, baseline) for baseline in (True, False))
    assert with_baseline - without < 0.05 * without


def test_the_head_costs_nothing_where_no_token_is_scored():
    rollouts = fixed_rollouts(SMALL)
    longer = dataclasses.replace(rollouts, **{
        "prompt_ids": torch.cat([torch.full((2, 8), 5), rollouts.prompt_ids], dim=1),
        "prompt_mask": torch.cat([torch.ones(2, 8, dtype=torch.bool), rollouts.prompt_mask], dim=1),
    })  # fmt: skip
    # torch's own counter leaves out the CPU's attention, which does grow with the prompt.
    counts = [gflop(PromptCopies(), r, False, FlopCounterMode(display=False)) for r in (rollouts, longer)]
    more = counts[1] - counts[0]
    tokens = len(rollouts) * 8
    assert more == pytest.approx(3 * 2e-9 * SMALL.body_parameters * tokens, rel=1e-3)
