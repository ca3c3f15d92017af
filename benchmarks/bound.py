"""Lower bound on the matrix products of a step, in GFLOP.

Every prompt token and every sampled token once, instructions that all prompts begin with once per step, no padding, the
output head only where a token is predicted, and a backward pass of twice the forward's work. Attention scores,
element-wise work and memory traffic are not counted. Divided by the machine's rate of large matrix products, it bounds
the time of a step from below.
"""

from __future__ import annotations

from benchmarks.workload import Workload


def bound_gflop(work: Workload, sampled: float, ended: float) -> dict[str, float]:
    """GFLOP by phase of a step with `sampled` tokens, `ended` of them end tokens; `reward` is the baseline."""
    prompt, answer = work.prefix + sum(work.prompt_tokens), sum(work.answer_tokens)
    # The last token of a sequence need not be processed; the first is predicted by the prompt.
    decoded = sampled - work.rollouts
    scored = sampled - ended + work.rollouts + work.group_size * answer  # trace + marker + answer
    rollout = gflop(work, body=prompt + decoded, head=work.prompts + decoded)
    forward = gflop(work, body=prompt + scored - work.rollouts, head=scored)
    reward = gflop(work, body=answer, head=answer)  # marker + answer - 1 after the empty trace
    parts = {"rollout": rollout, "reward": reward, "forward": forward, "backward": 2 * forward}
    return parts | {"step": sum(parts.values())}


def gflop(work: Workload, body: float, head: float) -> float:
    """GFLOP of a forward pass of `body` tokens through the layers and `head` tokens through the output head."""
    return 2e-9 * (body * work.body_parameters + head * work.head_parameters)
