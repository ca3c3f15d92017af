"""The forward passes of one training step, for every preset: what is not configured costs nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from cli.small_runs import small_args

from methods.test_presets import METHODS
from nrt_lightning import Policy
from nrt_lightning.cli.main import run
from nrt_lightning.modules.base import PolicyModule
from nrt_lightning.structures import Rollouts, Scores

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
    **dict.fromkeys(["maxrl", "gspo", "empo"], ONE_PASS),
    "ttrl": WITH_REFERENCE,
    **dict.fromkeys(["rent", "em_rl_token", "em_rl_sequence"], WITH_REFERENCE | SCORED_FIRST),
    "latro": WITH_REFERENCE | SCORED_FIRST,
    "jepo_with_rl": WITH_REFERENCE,
    "gdpo": WITH_BASELINE | SCORED_FIRST,
    **dict.fromkeys(["rlpr_llama", "rlpr_gemma"], WITH_REFERENCE | SCORED_FIRST),
    "nover": WITH_REFERENCE | SCORED_FIRST,
    "rlpr_original": WITH_REFERENCE | SCORED_FIRST,  # the other model is the initial policy
    "dro": WITH_REFERENCE | WITH_BASELINE | SCORED_FIRST,
}


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[Policy | None, str]]:
    """Counts the forward passes over the rollouts of training, by policy and kind."""
    counts: Counter[tuple[Policy | None, str]] = Counter()
    score, validate = Policy.score, PolicyModule.validation_step

    def counted(self: Policy, rollouts: Rollouts, *, baseline: bool = False) -> Scores:
        counts[self, "trained" if torch.is_grad_enabled() else "not trained"] += 1
        counts[None, "baseline of the policy"] += baseline
        return score(self, rollouts, baseline=baseline)

    def uncounted(self: PolicyModule, *batch: Any) -> dict[str, Any]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Policy, "score", score)
            return validate(self, *batch)

    def certainty(network: torch.nn.Module, rollouts: Rollouts) -> torch.Tensor:
        counts[None, "certainty"] += 1
        return torch.zeros_like(rollouts.completion_ids).float()

    monkeypatch.setattr(Policy, "score", counted)
    monkeypatch.setattr(PolicyModule, "validation_step", uncounted)
    monkeypatch.setattr("nrt_lightning.signals.self_certainty.token_certainty", certainty)
    return counts


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_and_makes_no_forward_pass_that_nothing_reads(
    name: str, passes: Counter[tuple[Policy | None, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["nrt-lightning"])
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    named = METHODS[name].read_text().splitlines()[0].split("nrt:methods/")[1:]  # the last one is this
    configs = [word for other in named for word in ("--config", str(METHODS[other.split()[0]]))]
    once = ["--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--trainer.enable_checkpointing=false",
            "--trainer.val_check_interval=1", "--trainer.logger=false", "--trainer.callbacks=[]"]  # fmt: skip
    cli = run(small_args("fit", tmp_path, *configs, *once))
    assert cli.trainer.global_step == 1
    assert torch.isfinite(cli.trainer.callback_metrics["train/loss"])
    found: Counter[str] = Counter()
    for (policy, kind), count in passes.items():
        found[kind if policy in (None, cli.model.policy) else "other model"] += count
    assert +found == EXPECTED[name]
