from __future__ import annotations

import torch

from nrt_lightning.functional import K1
from nrt_lightning.losses import (
    CISPO,
    Surrogate,
    SurrogateOutput,
    answer_term,
    forced_marker_tokens,
    kl_term,
    marker_term,
    sampled_tokens,
    trace_term,
    trace_tokens,
)
from nrt_lightning.structures import Segments

NAN = float("nan")


def bools(*rows: str) -> torch.Tensor:
    return torch.tensor([[c == "1" for c in row] for row in rows])


SEGMENTS = Segments(bools("1100", "1000"), bools("0010", "0100"), bools("0001", "0010"), torch.tensor([True, False]))


def test_tokens_of_each_term() -> None:
    assert torch.equal(sampled_tokens(SEGMENTS), bools("1110", "1000"))
    assert torch.equal(forced_marker_tokens(SEGMENTS), bools("0000", "0100"))
    assert torch.equal(trace_tokens(SEGMENTS), sampled_tokens(SEGMENTS))
    assert torch.equal(trace_tokens(SEGMENTS, "authors"), bools("1110", "1100"))


def test_values_are_zero_outside_the_mask_for_any_inputs() -> None:
    mask = bools("10")
    logprobs = torch.tensor([[-0.5, NAN]])
    trace = trace_term(logprobs, logprobs, torch.tensor([2.0]), mask, CISPO())
    for term, value in [
        (trace, 1.0),
        (marker_term(logprobs, mask), 0.5),
        (answer_term(logprobs, torch.tensor([[3.0, NAN]]), mask), 1.5),
        (kl_term(logprobs, torch.tensor([[-1.5, NAN]]), mask, K1()), 1.0),
    ]:
        assert term.values.tolist() == [[value, 0.0]]
        assert torch.equal(term.mask, mask)


def test_a_trace_without_tokens_may_have_any_advantage() -> None:
    term = trace_term(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([NAN]), bools("00"), CISPO())
    assert (term.values == 0).all()


def test_clipped_tokens_are_within_the_mask() -> None:
    logprobs, old = torch.tensor([[-0.1, -0.1]]), torch.tensor([[-2.0, -2.0]])
    term = trace_term(logprobs, old, torch.tensor([1.0]), bools("10"), CISPO())
    assert torch.equal(term.clipped, bools("10"))
    assert not term.mask.any()

    class ClipsEverything(Surrogate):
        def __call__(self, logprobs, old_logprobs, advantages, mask=None):
            return SurrogateOutput(logprobs, torch.ones_like(logprobs, dtype=torch.bool))

    term = trace_term(logprobs, old, torch.tensor([1.0]), bools("10"), ClipsEverything())
    assert torch.equal(term.clipped, bools("10"))
    assert torch.equal(term.mask, bools("10"))
