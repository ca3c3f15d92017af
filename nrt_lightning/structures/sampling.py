"""Settings of the sampling."""

from __future__ import annotations

from dataclasses import dataclass, field

from nrt_lightning.functional.validation import check_at_least, check_fraction

LEAST = {
    "group_size": 1,
    "max_trace_tokens": 0,  # models that write no traces
    "max_answer_tokens": 1,
    "temperature": 0,
    "top_k": 0,
    "refill_rounds": 0,
}


@dataclass
class Sampling:
    """How traces are drawn.

    Args:
        group_size: traces sampled for each prompt (K).
        max_trace_tokens: a trace that reaches this length without the marker is cut there and counted as truncated.
        max_answer_tokens: limit of an answer that the policy writes itself, in prediction or for training.
        temperature: of the sampling distribution, under which log-probs of traces and markers are trained; confidences
            in reference answers are those at 1. 0 is greedy, for evaluation only.
        answer_temperature: of the answers that the policy writes itself in training; null for that of the traces.
        top_p: keep the smallest set of tokens with at least this probability; 1 keeps all. Below 1, training needs a
            `sampler_correction` of the loss.
        top_k: keep this many most probable tokens; 0 keeps all. Above 0, as `top_p` below 1.
        suppress_eos: never sample the end token inside a trace. A base that ends its texts with it shares the
            marker's probability with it until it has learned the marker.
        refill_rounds: how often groups that were filtered are replaced by those of further rows, at most; 0 leaves
            them without a loss.
        keep_surplus: keep the questions of groups that were left over from a replacement for the next one.

    Raises:
        InputError: a number is out of range.
    """

    group_size: int = 8
    max_trace_tokens: int = 512
    max_answer_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    suppress_eos: bool = field(default=False, kw_only=True)
    answer_temperature: float | None = None
    refill_rounds: int = 0
    keep_surplus: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            check_at_least(f"sampling.{name}", getattr(self, name), least)
        check_fraction("sampling.top_p", self.top_p, above=True)
        if self.answer_temperature is not None:
            check_at_least("sampling.answer_temperature", self.answer_temperature, 0)
