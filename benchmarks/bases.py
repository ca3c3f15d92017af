"""Skills of a base before training: the table of bases in docs/results.md.

python -m benchmarks.bases embedded:registers-base registers
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning import (
    ArithmeticMean,
    GeometricMean,
    GroupNormalized,
    LogProb,
    PointerChasing,
    Policy,
    Prob,
    RegisterPrograms,
    SloppyReports,
    WeightedSum,
)
from nrt_lightning.data import PlainTemplate
from nrt_lightning.data.encoding import PromptEncoder
from nrt_lightning.functional import pack_segment, pad_rows
from nrt_lightning.rollouts import GenerationRequest, Generations, TransformersEngine, assemble
from nrt_lightning.structures import Prompts
from nrt_lightning.tasks import pointers, registers
from nrt_lightning.tasks.base import MadeRows

AGGREGATORS = {
    "WS -log p": WeightedSum("neg_log_prob"),
    "WS 1/p": WeightedSum("inverse_prob"),
    "GM": GeometricMean(),
    "AM": ArithmeticMean(),
    "LogProb": LogProb(),
    "Prob": Prob(),
}


@dataclass(frozen=True)
class Task:
    """How traces of a task are parsed."""

    rows: type[MadeRows]
    step: str  # regular expression of a step: a name and its value
    asked: Callable[[str], str]  # from the end of the question to the names that are asked for
    worked_trace: Callable[[str], str]
    hard: str  # tokens of the answer that depend on the trace

    def found(self, trace: str) -> dict[str, str]:
        """Values in a trace by name; the last one counts."""
        return dict(re.findall(self.step, trace.replace(" ", "")))

    def useful(self, question: str, trace: str) -> bool:
        """True if a trace has the right values of the names that are asked for."""
        right, found = self.found(self.worked_trace(question)), self.found(trace)
        return all(found.get(name) == right[name] for name in self.asked(question.rpartition("?")[2][:-1]))

    def worked(self, question: str, trace: str) -> bool:
        """True if a trace has all steps, right or wrong."""
        return self.found(self.worked_trace(question)).keys() <= self.found(trace).keys()


REGISTER_STEP = r"([a-f])(?:[+*]\d)?=?(\d)"
TASKS = {
    "registers": Task(RegisterPrograms, REGISTER_STEP, lambda asked: asked, registers.worked_trace, "01234"),
    "reports": Task(SloppyReports, REGISTER_STEP, lambda asked: asked, registers.worked_trace, "01234"),
    "pointers": Task(
        PointerChasing, r"(\d)=?[a-h]?([a-h])", lambda asked: asked[1:], pointers.worked_trace, "abcdefgh"
    ),
}


def encode(policy: Policy, task: Task, size: int) -> Prompts:
    """Validation questions."""
    encoded = PromptEncoder(policy.tokenizer, PlainTemplate()).encode(task.rows("validation", size).rows())
    return encoded.collate([encoded[i] for i in range(len(encoded))])


def from_texts(policy: Policy, texts: list[str]) -> Generations:
    """Traces from texts, each ended by the end token."""
    ids = [[*policy.tokenizer(t, add_special_tokens=False)["input_ids"], policy.tokenizer.eos_token_id] for t in texts]
    return Generations(*pad_rows([torch.tensor(row) for row in ids]), stopped=torch.ones(len(ids), dtype=torch.bool))


def answer_logprobs(policy: Policy, prompts: Prompts, traces: Generations) -> tuple[Tensor, Tensor]:
    """Log-probs of the answers after the traces [N, T], and after the empty trace [B, T]."""
    rollouts = assemble(prompts, traces, policy.markup)
    scores = policy.score(rollouts, baseline=True)
    assert scores.baseline_logprobs is not None
    return pack_segment(
        scores.logprobs, rollouts.segments.answer_mask, prompts.answer_ids.shape[1]
    ), scores.baseline_logprobs


@dataclass(frozen=True)
class Treatment:
    """Effect of an aggregation on a base's traces."""

    first: float  # fraction of the groups with a useful trace in which one has the highest reward
    unclipped: tuple[float, float, float]  # mean advantages of useful, worked but not useful, and other traces
    clipped: tuple[float, float, float]  # the same with rewards clipped at the baseline


def treatments(
    policy: Policy, prompts: Prompts, traces: Generations, useful: Tensor, worked: Tensor
) -> dict[str, Treatment]:
    """Treatments by aggregation; `useful` and `worked` are [B, K]."""
    size = useful.shape[1]
    logprobs, baseline = answer_logprobs(policy, prompts, traces)
    rows = torch.arange(len(prompts)).repeat_interleave(size)
    some, kinds = useful.any(dim=1), (useful, worked & ~useful, ~worked & ~useful)
    found = {}
    for name, aggregator in AGGREGATORS.items():
        rewards = aggregator(logprobs, prompts.answer_mask[rows], baseline[rows]).value  # [N]
        empty = aggregator(baseline, prompts.answer_mask, baseline).value[rows]
        best = useful.gather(1, rewards.view(-1, size).argmax(dim=1, keepdim=True)).squeeze(1)
        means = []
        for kind in ("none", "clip"):
            advantages = GroupNormalized(baseline=kind)(rewards, rows, empty).view(-1, size)
            means.append(tuple(float(advantages[which].mean()) for which in kinds))
        found[name] = Treatment(float(best[some].float().mean()), *means)
    return found


@dataclass(frozen=True)
class Skills:
    """Skills of a base."""

    worked: float  # fraction of sampled traces with all steps
    useful: float  # fraction with the right values of what is asked
    reading: float  # confidence in the answer's hard tokens after a right trace
    guessing: float  # the same after the empty trace
    treatments: dict[str, Treatment]  # by aggregation


def skills(model: str, task: Task, questions: int = 256, size: int = 8) -> Skills:
    """Sample traces for validation questions and evaluate them."""
    policy = Policy(model).load()
    prompts = encode(policy, task, questions)
    hard_ids = torch.tensor(policy.tokenizer.convert_tokens_to_ids(list(task.hard)))
    hard = torch.isin(prompts.answer_ids, hard_ids) & prompts.answer_mask  # [B, T]
    stops = [policy.markup.marker_ids[0], *policy.eos_ids]
    with policy.evaluating():
        request = GenerationRequest(prompts.prompt_ids, prompts.prompt_mask, 32, stops, size)
        traces = TransformersEngine().generate(policy, request)
        ids = [ids[mask].tolist() for ids, mask in zip(traces.token_ids, traces.token_mask)]
        texts = policy.tokenizer.batch_decode(ids, skip_special_tokens=True)
        pairs = [(prompts.rows[i // size].question, text) for i, text in enumerate(texts)]
        useful = torch.tensor([task.useful(question, trace) for question, trace in pairs])
        worked = torch.tensor([task.worked(question, trace) for question, trace in pairs])
        ideal = from_texts(policy, [task.worked_trace(row.question) for row in prompts.rows])
        logprobs, baseline = answer_logprobs(policy, prompts, ideal)
        return Skills(
            worked=float(worked.float().mean()),
            useful=float(useful.float().mean()),
            reading=float(logprobs.exp()[hard].mean()),
            guessing=float(baseline.exp()[hard].mean()),
            treatments=treatments(policy, prompts, traces, useful.view(-1, size), worked.view(-1, size)),
        )


def main() -> None:
    """Print a row of the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--questions", type=int, default=1024)
    options = parser.parse_args()
    found = skills(options.model, TASKS[options.task], options.questions)
    print(f"worked {found.worked:.3f}  useful {found.useful:.4f}  reading {found.reading:.3f}  ", end="")
    print(f"without trace {found.guessing:.3f}")
    print("aggregation  useful first   mean advantage of useful, worked but wrong, and other traces; clipped")
    for name, kind in found.treatments.items():
        means = "".join(f"{mean:8.2f}" for mean in (*kind.unclipped, *kind.clipped))
        print(f"{name:12s} {kind.first:12.2f}   {means}")


if __name__ == "__main__":
    main()
