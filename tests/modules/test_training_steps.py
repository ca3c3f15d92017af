"""A training step of every architecture has the gradients of plain forward passes, one for each completion."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from tiny import ANSWERS, QUESTIONS
from torch import Tensor
from typing_extensions import override

from benchmarks.architectures import build
from nrt_lightning import ConstantSchedule, NRTModule, PlainTemplate, QADataModule, Sampling
from nrt_lightning.models import ScoringForward
from nrt_lightning.structures import Rollouts, Scores

FAMILIES = ["llama", "qwen3_5_text", "gemma3_text"]
MORE = ["gpt2", "gpt_neo", "gpt_neox", "qwen2", "qwen3", "qwen3_moe", "gemma", "gemma2", "phi3", "olmo2", "mistral",
        "mixtral", "granite", "granitemoehybrid", "lfm2", "mamba", "mamba2", "smollm3", "deepseek_v2", "deepseek_v3",
        "gpt_oss", "falcon", "falcon_h1", "jamba", "bloom", "mpt", "opt", "diffllama", "hrm_text", "cohere2",
        "llama4_text", "qwen3_next", "rwkv", "ctrl"]  # fmt: skip
UNCHECKPOINTED = {"ctrl"}  # have no activation checkpointing


DROPOUT = dict.fromkeys(  # is off unless asked for
    ["attention_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop", "hidden_dropout", "resid_dropout",
     "embed_dropout", "attention_probs_dropout_prob", "hidden_dropout_prob", "dropout"], 0.2,
)  # fmt: skip


class Alone(ScoringForward):
    """Each completion by a plain forward pass of its sequence: nothing is shared, padded, cached or chunked."""

    @override
    def __call__(self, model, rollouts: Rollouts, *, baseline: bool = False) -> Scores:
        scores = one_by_one(model, rollouts)
        if baseline:
            with torch.no_grad():
                scores.baseline_logprobs = one_by_one(model, rollouts.empty_traces()).logprobs[
                    :, rollouts.direct_answers
                ]
        return scores


def one_by_one(model, rollouts: Rollouts) -> Scores:
    wanted = rollouts.segments.completion_mask
    logprobs, entropies = [], []
    for row in range(len(rollouts)):
        prompt = int(rollouts.group_ids[row])
        before = rollouts.prompt_ids[prompt][rollouts.prompt_mask[prompt]]
        after = rollouts.completion_ids[row][wanted[row]]
        logits = model(input_ids=torch.cat([before, after])[None], use_cache=False).logits[0, len(before) - 1 : -1]
        all_logprobs = logits.float().log_softmax(-1)
        logprobs.append(padded(all_logprobs.gather(-1, after[:, None])[:, 0], wanted.shape[1]))
        entropies.append(padded(-(all_logprobs.exp() * all_logprobs).sum(-1).detach(), wanted.shape[1]))
    return Scores(logprobs=torch.stack(logprobs), entropy=torch.stack(entropies))


def padded(values: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, width - len(values)))


class Gradients(L.Callback):
    """Keeps what the optimizer gets."""

    def on_before_optimizer_step(self, trainer, module, optimizer):
        named = module.policy.network.named_parameters()
        self.found = {name: p.grad.clone() for name, p in named if p.grad is not None}


def step(trainer, family: str, **settings) -> tuple[dict[str, Tensor], float]:
    """The gradients and the loss of a training step."""
    policy = build(family, {} if family == "diffllama" else DROPOUT, **settings)  # which takes none
    module = NRTModule(policy, sampling=Sampling(group_size=3, max_trace_tokens=8), schedule=ConstantSchedule(0))
    rows = [{"question": q, "answer": a} for q, a in zip(QUESTIONS, ANSWERS, strict=True)]
    kept = Gradients()
    run = trainer(max_steps=1, callbacks=[kept], gradient_clip_val=None)
    run.fit(module, QADataModule(rows, rows, template=PlainTemplate(), batch_size=3))
    return kept.found, float(run.callback_metrics["train/loss"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_gradients_are_those_of_each_completion_alone(quiet_trainer, family):
    expected, loss = step(quiet_trainer, family, scoring=Alone())
    size = sum(float(grad.square().sum()) for grad in expected.values()) ** 0.5
    assert size > 0
    for checkpointed in (False, True):
        if checkpointed and family in UNCHECKPOINTED:
            continue
        found, own = step(quiet_trainer, family, activation_checkpointing=checkpointed)
        assert own == pytest.approx(loss, abs=1e-5, rel=1e-4)
        assert found.keys() == expected.keys()
        for name, grad in expected.items():
            assert grad.isfinite().all(), name
            assert (found[name] - grad).norm() <= 1e-3 * grad.norm() + 1e-5 * size, (name, checkpointed)
