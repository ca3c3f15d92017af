"""The output head only where a log-prob is needed (`models/scoring/base.py`) against the head at every position."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch

from benchmarks.techniques.technique import Technique
from benchmarks.workload import Workload, build_policy, fixed_rollouts
from nrt_lightning.functional import token_logprobs
from nrt_lightning.models import PromptCopies


class OutputHead(Technique):
    name: ClassVar[str] = "output_head"
    cases: ClassVar[tuple[str, ...]] = ("vocabulary 8,192", "vocabulary 32,768")
    ways: ClassVar[tuple[str, ...]] = ("everywhere", "needed")

    def build(self, case: str, way: str) -> Callable[[], float]:
        work = Workload(vocabulary=int(case.split()[1].replace(",", "")))
        policy, rollouts = build_policy(work, scoring=PromptCopies()), fixed_rollouts(work)
        # Prompts are copied, so only the head differs.
        ids = torch.cat([rollouts.prompt_ids[rollouts.group_ids], rollouts.completion_ids], dim=1)  # [N, P + C]
        wanted = rollouts.segments.completion_mask  # [N, C]
        mask = torch.cat([rollouts.prompt_mask[rollouts.group_ids], wanted], dim=1)  # [N, P + C]
        width = wanted.shape[1]

        def everywhere() -> torch.Tensor:
            logits = policy.network(input_ids=ids, attention_mask=mask.long(), use_cache=False).logits[:, :-1]
            return token_logprobs(logits, ids[:, 1:])[:, -width:] * wanted

        def needed() -> torch.Tensor:
            return policy.score(rollouts).logprobs

        def forward_and_backward() -> float:
            (everywhere() if way == "everywhere" else needed()).sum().backward()
            policy.zero_grad()
            return 1

        return forward_and_backward
