"""The work that a step cannot do without, in GFLOP: what a machine that only multiplied matrices would have to do.

Every prompt token once, every sampled token once, no padding, the output head only where a token is predicted, a
backward pass of twice the forward's work, and no attention scores, element-wise work or memory traffic. Divided by
the rate at which the machine multiplies large matrices, it bounds the time of a step from below.
"""

from __future__ import annotations

from benchmarks.workload import Workload


def bound_gflop(work: Workload, sampled: float, ended: float) -> dict[str, float]:
    """GFLOP by phase of a step that samples `sampled` tokens, `ended` of them end tokens; the baseline is `reward`."""
    prompt, answer = sum(work.prompt_tokens), sum(work.answer_tokens)
    # The last token of a sequence predicts nothing and need not be read; the first is predicted by the prompt.
    decoded = sampled - work.rollouts
    scored = sampled - ended + work.rollouts + work.group_size * answer  # trace + marker + answer
    rollout = gflop(work, body=prompt + decoded, head=work.prompts + decoded)
    forward = gflop(work, body=prompt + scored - work.rollouts, head=scored)
    reward = gflop(work, body=answer, head=answer)  # marker + answer - 1 after the empty trace
    parts = {"rollout": rollout, "reward": reward, "forward": forward, "backward": 2 * forward}
    return parts | {"step": sum(parts.values())}


def gflop(work: Workload, body: float, head: float) -> float:
    """GFLOP of a forward pass of so many tokens through the layers and through the output head."""
    return 2e-9 * (body * work.body_parameters + head * work.head_parameters)
