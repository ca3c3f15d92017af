"""Sampling parameters under vLLM's names."""

from __future__ import annotations

from typing import Any

from nrt_lightning.rollouts.engine import GenerationRequest

NEVER = -100.0  # lowest logit bias that vLLM accepts: a probability of 1e-44


def sampling_parameters(request: GenerationRequest) -> dict[str, Any]:
    """Sampling parameters of all jobs of a request.

    Only the request's stops end a row; `ignore_eos` keeps the tokenizer's end token from doing so.
    """
    parameters: dict[str, Any] = {
        "max_tokens": request.max_new_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "stop_token_ids": request.stop_ids,
        "ignore_eos": True,
        "logprobs": 0,  # of the sampled token alone
    }
    if request.stop_text is not None:  # the tokens that hold it are returned
        text = {"stop": [request.stop_text], "include_stop_str_in_output": True, "skip_special_tokens": False}
        parameters |= text
    if request.banned_ids:
        parameters["logit_bias"] = {str(token): NEVER for token in request.banned_ids}
    return parameters
