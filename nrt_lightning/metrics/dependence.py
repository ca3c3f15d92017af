"""The dependence of traces on their prompts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.errors import InputError


@dataclass
class PromptDependence:
    """The information of traces about the prompts they were sampled for."""

    fraction: Tensor  # scalar: 1 where every trace identifies its prompt, 0 where traces ignore their prompts
    retrieval: Tensor  # scalar: the fraction of traces that are likeliest after their prompt; chance is 1/M


def prompt_dependence(logprobs: Tensor, prompt_index: Tensor) -> PromptDependence:
    """The mutual information of prompts and traces, as a fraction of its maximum.

    With M equally likely prompts, a trace z of prompt x has `log p(z|x) - log (1/M sum_j p(z|x_j))` nats of information
    about its prompt, at most log M. This is the estimate of RAGEN-2 (arXiv 2604.06268), for whole traces and divided by
    log M. Entropy does not detect template collapse: it is low for a policy that has solved its task, and for one that
    writes the same text for every prompt.

    Args:
        logprobs: log-probs of each trace after each prompt, summed over its tokens, [N, M].
        prompt_index: index of the prompt that each trace was sampled for, [N].

    Raises:
        InputError: fewer than two prompts.

    Example:
        >>> certain = torch.tensor([[0.0, -50.0], [-50.0, 0.0]])  # each trace is possible after its prompt only
        >>> prompt_dependence(certain, torch.tensor([0, 1])).fraction
        tensor(1.)
        >>> prompt_dependence(torch.full((2, 2), -3.0), torch.tensor([0, 1])).fraction  # a template
        tensor(0.)
    """
    prompts = logprobs.shape[1]
    if prompts < 2:
        raise InputError(f"logprobs has {prompts} prompts, but prompt_dependence compares at least 2.")
    logprobs = logprobs.double()  # sums over long traces are large, their differences small
    matched = logprobs.gather(1, prompt_index.unsqueeze(1)).squeeze(1)  # [N]
    nats = matched - (logprobs.logsumexp(dim=1) - math.log(prompts))  # [N]
    # A trace that is equally likely after several prompts counts in part.
    best = logprobs == logprobs.max(dim=1, keepdim=True).values  # [N, M]
    found = torch.where(best.gather(1, prompt_index.unsqueeze(1)).squeeze(1), 1 / best.sum(dim=1), 0)  # [N]
    return PromptDependence((nats.mean() / math.log(prompts)).float(), found.mean().float())
