"""A request as one job per prompt, and the sampled lines of all jobs as tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from threading import Event
from typing import Any

import torch

from nrt_lightning.functional.padding import pad_rows
from nrt_lightning.randomness import counter_seed
from nrt_lightning.rollouts.engine import GenerationRequest, Generations, Progress
from nrt_lightning.rollouts.sampled_tokens import end_at
from nrt_lightning.rollouts.stop_text import StopText


@dataclass(frozen=True)
class Job:
    """One prompt, to be continued `count` times."""

    prompt_ids: list[int]
    count: int
    seed: int


@dataclass(frozen=True)
class Line:
    """One continuation."""

    ids: list[int]  # with the stop token, if there is one
    logprobs: list[float]  # of these tokens under the sampling distribution


def jobs_of(request: GenerationRequest) -> list[Job]:
    """One job per prompt.

    Seeds follow from the prompts and not from their positions, so samples do not depend on how prompts are spread over
    processes. Repeated prompts get different seeds. A greedy job has one continuation, since all would be equal.
    """
    seen: Counter[str] = Counter()
    jobs = []
    for ids, mask, count in zip(request.prompt_ids, request.prompt_mask, request.per_prompt, strict=True):
        prompt = ids[mask].tolist()
        seed = counter_seed(request.seed, 0, seen[str(prompt)], stream=str(prompt)) >> 8  # servers may use seed + k
        seen[str(prompt)] += 1
        jobs.append(Job(prompt, count if request.temperature else 1, seed))
    return jobs


def run_concurrently(
    jobs: list[Job],
    ask: Callable[[int, Event], list[Line]],
    workers: int,
    max_new_tokens: int,
    progress: Progress | None = None,
) -> list[list[Line]]:
    """Run all jobs in threads; return the lines of each, in order.

    Args:
        jobs: one per prompt.
        ask: from the index of a job to its lines; its event is set when they are no longer needed.
        workers: largest number of concurrent jobs.
        max_new_tokens: reported to `progress`.
        progress: called after each job.
    """
    found: list[list[Line]] = [[] for _ in jobs]
    left, longest = sum(job.count for job in jobs), 0
    canceled = Event()
    pool = ThreadPoolExecutor(min(len(jobs), workers), thread_name_prefix="engine")
    try:
        futures = {pool.submit(ask, index, canceled): index for index in range(len(jobs))}
        for done in as_completed(futures):
            lines = found[futures[done]] = done.result()
            left, longest = left - len(lines), max(longest, *(len(line.ids) for line in lines))
            if progress is not None:
                progress(longest, max_new_tokens, left)
    finally:
        canceled.set()
        pool.shutdown(cancel_futures=True)
    return found


def gather(request: GenerationRequest, found: list[list[Line]], version: int, tokenizer: Any) -> Generations:
    """The lines of all jobs as tensors on the request's device.

    Args:
        request: what was requested.
        found: the lines of every job, in order.
        version: of the weights that sampled them.
        tokenizer: of the policy, to find a stop text.
    """
    device, stops = request.prompt_ids.device, set(request.stop_ids)
    repeats = [1 if request.temperature else count for count in request.per_prompt]
    lines = [line for lines, times in zip(found, repeats, strict=True) for line in lines * times]
    ids, mask = pad_rows([torch.tensor(line.ids, dtype=torch.long) for line in lines])  # [N, L]
    logprobs, _ = pad_rows([torch.tensor(line.logprobs, dtype=torch.float32) for line in lines])  # [N, L]
    if not request.temperature:
        logprobs = torch.zeros_like(logprobs)  # greedy: the only token has probability 1
    stopped = torch.tensor([bool(line.ids) and line.ids[-1] in stops for line in lines], dtype=torch.bool)  # [N]
    result = Generations(ids, mask, stopped, logprobs if request.logprobs else None, version)
    if request.stop_text is not None:
        result = end_at(result, StopText(tokenizer, request.stop_text))
    return result.to(device)
