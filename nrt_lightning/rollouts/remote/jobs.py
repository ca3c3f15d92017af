"""A request as vLLM takes it, prompt by prompt, and what it wrote as an engine gives it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch

from nrt_lightning.randomness import counter_seed
from nrt_lightning.rollouts.engine import GenerationRequest, Generations

NEVER = -100.0  # the most that vLLM lets a logit be lowered: a probability of 1e-44


@dataclass(frozen=True)
class Job:
    """One prompt, to be continued `count` times."""

    prompt_ids: list[int]
    count: int
    seed: int


@dataclass(frozen=True)
class Line:
    """A continuation."""

    ids: list[int]
    logprobs: list[float]


def jobs_of(request: GenerationRequest) -> list[Job]:
    """One job a prompt.

    A seed belongs to a whole job: vLLM gives the k-th continuation of a job the seed + k, so two prompts under one seed
    would draw alike. The seeds follow from the prompts, not from their places, and so the draws do not depend on how
    prompts are spread over processes. A greedy job has one continuation, which vLLM insists on.
    """
    seen: Counter[str] = Counter()
    jobs = []
    for ids, mask in zip(request.prompt_ids, request.prompt_mask, strict=True):
        prompt = ids[mask].tolist()
        seed = counter_seed(request.seed, 0, seen[str(prompt)], stream=str(prompt)) >> 8  # room to add k
        seen[str(prompt)] += 1
        jobs.append(Job(prompt, request.group_size if request.temperature else 1, seed))
    return jobs


def sampling_settings(request: GenerationRequest) -> dict[str, Any]:
    """Sampling parameters of all jobs of a request, under the names that vLLM has for them.

    What ends a row is in `stop_token_ids` alone, so the tokenizer's end token is told to end nothing by itself.
    """
    settings: dict[str, Any] = {
        "max_tokens": request.max_new_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "stop_token_ids": request.stop_ids,
        "ignore_eos": True,
        "logprobs": 0,  # that of the sampled token alone
    }
    if request.banned_ids:
        settings["logit_bias"] = {str(token): NEVER for token in request.banned_ids}
    return settings


def gather(request: GenerationRequest, found: list[list[Line]], version: int) -> Generations:
    """The lines of all jobs as tensors on the request's device.

    Args:
        request: what was asked.
        found: the lines of every job, in order.
        version: of the weights that wrote them.
    """
    device, stops = request.prompt_ids.device, set(request.stop_ids)
    lines = [line for lines in found for line in (lines if request.temperature else lines * request.group_size)]
    width = max((len(line.ids) for line in lines), default=0)
    ids = torch.zeros(len(lines), width, dtype=torch.long)
    mask = torch.zeros(len(lines), width, dtype=torch.bool)
    logprobs = torch.zeros(len(lines), width)
    for row, line in enumerate(lines):
        ids[row, : len(line.ids)] = torch.tensor(line.ids, dtype=torch.long)
        mask[row, : len(line.ids)] = True
        if request.temperature:  # greedy: the one token has probability 1
            logprobs[row, : len(line.ids)] = torch.tensor(line.logprobs)
    stopped = torch.tensor([bool(line.ids) and line.ids[-1] in stops for line in lines], dtype=torch.bool)
    result = Generations(ids, mask, stopped, logprobs if request.logprobs else None, version)
    return result.to(device)
