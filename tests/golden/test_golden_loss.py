from __future__ import annotations

import pytest
import torch
from golden_vectors import cases, dtype_of, mask, number, numbers

from nrt_lightning.functional import SequenceMean, SequenceSum, SequenceSumConstant, TokenMean
from nrt_lightning.losses import CISPO, LossInputs, NRTLoss
from nrt_lightning.structures import LossOutput, Segments

CASES = [(case, output) for case in cases("loss") for output in case["outputs"]]
IDS = [f"{c['config']['dtype']}-{c['name']}-{o['aggregation']}-{o['scale_factor']}" for c, o in CASES]


def reduction(output: dict, width: int):
    if output["aggregation"] == "seq-mean-token-sum-norm":  # without a factor the divisor is the padded width
        return SequenceSumConstant(output["scale_factor"] or width, average=False)
    return {"seq-mean-token-sum": SequenceSum(), "seq-mean-token-mean": SequenceMean(), "token-mean": TokenMean()}[
        output["aggregation"]
    ]


def evaluate(case: dict, output: dict, **settings) -> tuple[LossOutput, torch.Tensor]:
    """Our loss and gradient of a golden case with the authors' settings."""
    inputs, config, dtype = case["inputs"], case["config"], dtype_of(case)
    logprobs = numbers(inputs["log_prob"], dtype).requires_grad_()
    surrogate = CISPO(
        ratio_low=config["cispo_clip_ratio_low"],
        ratio_high=config["cispo_clip_ratio_high"],
        drop_below=config["clip_ratio_low"],
        drop_above=config["clip_ratio_high"],
    )
    settings = {"forced_marker": "authors", "reduction": reduction(output, logprobs.shape[1])} | settings
    loss = NRTLoss(
        surrogate=surrogate,
        trace_coef=config["trace_coef"],
        marker_coef=config["marker_coef"],
        answer_coef=config["token_coef"],
        **settings,
    )
    segments = Segments(
        mask(inputs["trace_mask"]),
        mask(inputs["marker_mask"]),
        mask(inputs["answer_mask"]),
        torch.tensor(inputs["marker_matched"]),
    )
    result = loss(
        LossInputs(
            logprobs=logprobs,
            old_logprobs=numbers(inputs["old_log_prob"], dtype),
            segments=segments,
            advantages=numbers(inputs["advantage"], dtype),
            token_weights=numbers(inputs["token_reward"], dtype),
        )
    )
    result.loss.backward()
    assert logprobs.grad is not None
    return result, logprobs.grad


def close(actual: torch.Tensor, expected: torch.Tensor, case: dict, output: dict) -> None:
    rtol = 1e-7 if output["aggregation"] == "seq-mean-token-mean" else 1e-10
    tol = {"rtol": rtol, "atol": 1e-14} if actual.dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-7}
    torch.testing.assert_close(actual, expected.to(actual.dtype), **tol)


@pytest.mark.parametrize(("case", "output"), CASES, ids=IDS)
def test_loss_and_gradient_equal_the_authors(case: dict, output: dict) -> None:
    result, grad = evaluate(case, output)
    official = {
        "trace": number(output["trace_loss"]),
        "marker": number(output["marker_loss"]),
        "answer": number(output["token_loss"]),
    }
    if case["name"] == "all_markers_matched":
        # The official marker term is 0/0 in the mean modes, and so are loss and gradient; ours is 0.
        assert result.terms["marker"] == 0
        official["marker"] = 0.0
    for name, expected in official.items():
        close(result.terms[name], torch.tensor(expected, dtype=torch.float64), case, output)
    config = case["config"]
    total = sum(config[f"{'token' if k == 'answer' else k}_coef"] * v for k, v in official.items())
    close(result.loss.detach(), torch.tensor(total, dtype=torch.float64), case, output)
    assert grad.isfinite().all()
    if output["grad_log_prob"] is not None and output["loss"] is not None:
        close(grad, numbers(output["grad_log_prob"]), case, output)
    if output["aggregation"] == "token-mean":
        close(
            result.metrics["answer_nll"], torch.tensor(number(output["answer_nll"]), dtype=torch.float64), case, output
        )


@pytest.mark.parametrize("case", cases("loss"), ids=[f"{c['config']['dtype']}-{c['name']}" for c in cases("loss")])
def test_default_reduction_is_the_authors_divided_by_the_number_of_sequences(case: dict) -> None:
    """The divisor is 512, while in the official code the padded width replaces it."""
    official = [o for o in case["outputs"] if o["aggregation"] == "seq-mean-token-sum-norm" and o["scale_factor"]]
    for output in official or case["outputs"][:1]:
        result, _ = evaluate(case, output, reduction=NRTLoss().reduction)
        rows = len(case["inputs"]["log_prob"])
        factor = 1 if official else len(case["inputs"]["log_prob"][0]) / 512
        expected = torch.tensor(number(output["loss"]) * factor / rows, dtype=torch.float64)
        close(result.loss.detach(), expected, case, output)


def test_forced_marker_carries_no_trace_term_by_default() -> None:
    """Negative advantages make forced markers less likely in the official code, but not in ours by default."""
    case, output = next((c, o) for c, o in CASES if c["name"] == "no_marker_matched" and o["scale_factor"])
    forced = mask(case["inputs"]["marker_mask"])
    bad = forced & (numbers(case["inputs"]["advantage"]) < 0).unsqueeze(1)
    _, ours = evaluate(case, output, forced_marker="excluded")
    _, theirs = evaluate(case, output, forced_marker="authors")
    cross_entropy = -case["config"]["marker_coef"] / output["scale_factor"]
    torch.testing.assert_close(ours[forced], torch.full_like(ours[forced], cross_entropy))
    assert (theirs[bad] > 0).any()  # the marker becomes less likely
    assert torch.equal(ours[~forced], theirs[~forced])
