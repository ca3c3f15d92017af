"""The forward passes of one training step, for every preset: what is not configured costs nothing."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
import torch
from short_runs import fast, registers

from methods.test_presets import METHODS, module_of
from nrt_lightning import Policy

ONE_PASS = {"trained": 1}  # with gradient, over traces and answers
WITH_BASELINE = ONE_PASS | {"baseline of the policy": 1}
WITH_REFERENCE = ONE_PASS | {"other model": 1}
SCORED_FIRST = {"not trained": 1}  # the reference answers, where whole responses are trained
EXPECTED = {
    **dict.fromkeys(["nrt_am", "nrt_authors", "nrt_gm", "nrt_log_prob", "nrt_prob"], WITH_BASELINE),
    **dict.fromkeys(["nrt_ws_inverse_prob", "nrt_ws_neg_log_prob"], WITH_BASELINE),
    **dict.fromkeys(["jepo_reimplemented", "rlpr_reimplemented", "verifree_reimplemented", "hybrid"], ONE_PASS),
    **dict.fromkeys(["log_prob_reward", "mean_log_prob_reward", "verifree_original", "rlvr", "sft"], ONE_PASS),
    **dict.fromkeys(["jepo_original", "jepo_multi_sample"], WITH_REFERENCE),
    **dict.fromkeys(["intuitor", "intuitor_7b"], WITH_REFERENCE | {"certainty": 1}),
    **dict.fromkeys(["maxrl", "gspo", "ttrl", "empo"], ONE_PASS),
    **dict.fromkeys(["rent", "em_rl_token", "em_rl_sequence"], WITH_REFERENCE | SCORED_FIRST),
    "latro": WITH_REFERENCE | SCORED_FIRST,
    "jepo_with_rl": WITH_REFERENCE,
    "gdpo": WITH_BASELINE | SCORED_FIRST,
    **dict.fromkeys(["rlpr_llama", "rlpr_gemma"], WITH_REFERENCE | SCORED_FIRST),
    "nover": WITH_REFERENCE | SCORED_FIRST,
    "rlpr_original": WITH_REFERENCE | SCORED_FIRST,  # the other model is the initial policy
    "dro": WITH_REFERENCE | WITH_BASELINE | SCORED_FIRST,
}


def passes_of(name: str, quiet_trainer, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The forward passes over rollouts of one step, by their kind."""
    module, counts = module_of(name), Counter()
    score = Policy.score

    def counted(self: Policy, rollouts, *, baseline: bool = False):
        kind = "trained" if torch.is_grad_enabled() else "not trained"
        counts[kind if self is module.policy else "other model"] += 1
        counts["baseline of the policy"] += baseline
        return score(self, rollouts, baseline=baseline)

    monkeypatch.setattr(Policy, "score", counted)
    monkeypatch.setattr(
        "nrt_lightning.signals.self_certainty.token_certainty",
        lambda network, rollouts: counts.update(["certainty"]) or torch.zeros_like(rollouts.completion_ids).float(),
    )
    module.optimizer = fast
    if name != "sft":
        sampling = dataclasses.replace(module.method.sampling, group_size=4, max_trace_tokens=8, max_answer_tokens=4)
        module.method.sampling = sampling
    quiet_trainer(max_steps=1).fit(module, registers(val=None))
    return {kind: count for kind, count in counts.items() if count}


@pytest.mark.parametrize("name", METHODS)
def test_a_step_makes_no_forward_pass_that_nothing_reads(name, quiet_trainer, monkeypatch) -> None:
    found = passes_of(name, quiet_trainer, monkeypatch)
    assert found == EXPECTED[name]
