"""How much traces depend on the prompt they were written for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nrt_lightning.errors import InputError


@dataclass
class PromptDependence:
    """What the traces of a few prompts tell about which prompt they belong to."""

    share: Tensor  # scalar: 1 where every trace gives its prompt away, 0 where traces ignore their prompts
    retrieval: Tensor  # scalar: the share of traces that are likeliest after their own prompt; chance is 1/M


def prompt_dependence(logprobs: Tensor, own: Tensor) -> PromptDependence:
    """The mutual information of prompts and traces, as a share of the most it could be.

    With M prompts, all equally likely, a trace z of prompt x tells `log p(z|x) - log (1/M sum_j p(z|x_j))` nats about
    its prompt, and log M at most. This is the estimate of RAGEN-2 (arXiv 2604.06268), of whole traces and divided by
    log M. Entropy cannot tell a policy that has solved its task, whose traces are certain and differ between prompts,
    from one that writes the same text whatever it is asked (template collapse).

    Args:
        logprobs: of each trace after each prompt, summed over its tokens, [N, M].
        own: the prompt that each trace was written for, [N].

    Raises:
        InputError: fewer than two prompts.

    Example:
        >>> certain = torch.tensor([[0.0, -50.0], [-50.0, 0.0]])  # each trace is possible after its own prompt only
        >>> prompt_dependence(certain, torch.tensor([0, 1])).share
        tensor(1.)
        >>> prompt_dependence(torch.full((2, 2), -3.0), torch.tensor([0, 1])).share  # a template
        tensor(0.)
    """
    prompts = logprobs.shape[1]
    if prompts < 2:
        raise InputError(f"{prompts} prompts: whether traces depend on their prompt takes at least 2 to tell.")
    logprobs = logprobs.double()  # sums over long traces, whose differences count
    matched = logprobs.gather(1, own.unsqueeze(1)).squeeze(1)  # [N]
    nats = matched - (logprobs.logsumexp(dim=1) - math.log(prompts))  # [N]
    # A trace that is as likely after several prompts is found among them by luck.
    best = logprobs == logprobs.max(dim=1, keepdim=True).values  # [N, M]
    found = torch.where(best.gather(1, own.unsqueeze(1)).squeeze(1), 1 / best.sum(dim=1), 0)  # [N]
    return PromptDependence((nats.mean() / math.log(prompts)).float(), found.mean().float())
