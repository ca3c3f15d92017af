from __future__ import annotations

import dataclasses
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_batch import gradient, make

from nrt_lightning.errors import InputError
from nrt_lightning.functional import K1, K2, K3, SequenceMean, SequenceSum, SequenceSumConstant, TokenMean
from nrt_lightning.losses import CISPO, ClippedRatio, NRTLoss, PolicyGradient

INF, NAN = float("inf"), float("nan")
REDUCTIONS = [SequenceSumConstant(16), SequenceMean(), SequenceSum(), TokenMean()]
each_reduction = pytest.mark.parametrize("reduction", REDUCTIONS, ids=repr)


LENGTHS = st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 3))
BATCHES = st.builds(
    lambda rows, seed: make([r[0] for r in rows], [r[1] for r in rows], seed),
    st.lists(st.tuples(LENGTHS, st.booleans()), min_size=1, max_size=5),
    st.integers(0, 2**31),
)
LOSSES = st.builds(
    NRTLoss,
    surrogate=st.sampled_from([CISPO(), ClippedRatio(), PolicyGradient()]),
    reduction=st.sampled_from(REDUCTIONS),
    kl_coef=st.sampled_from([0.0, 0.1]),
    kl=st.sampled_from([K1(), K2(), K3()]),
    forced_marker=st.sampled_from(["excluded", "authors"]),
)


@given(BATCHES, LOSSES, st.sampled_from([NAN, INF, -INF, 1e300]))
@settings(deadline=None, max_examples=120)
def test_garbage_outside_the_masks_changes_nothing_and_gets_gradient_zero(batch, loss, garbage) -> None:
    """For any lengths, including empty traces, markers and answers."""
    expected, expected_grad = gradient(batch, loss)
    outside = ~batch.segments.completion_mask
    dirty = dataclasses.replace(
        batch,
        **{
            name: getattr(batch, name).masked_fill(outside, garbage)
            for name in ("logprobs", "old_logprobs", "token_weights", "ref_logprobs")
        },
    )
    out, grad = gradient(dirty, loss)
    assert torch.equal(out.loss, expected.loss)
    assert torch.equal(grad, expected_grad)
    assert grad.isfinite().all()
    assert (grad[outside] == 0).all()
    for name, value in (out.terms | out.metrics).items():
        assert torch.equal(value, (expected.terms | expected.metrics)[name])
        assert value.isfinite()
        assert not value.requires_grad


@given(BATCHES, LOSSES)
@settings(deadline=None, max_examples=60)
def test_each_tensor_is_read_only_on_its_tokens(batch, loss) -> None:
    """Old log-probs and reference are not read on the answer, and token weights only there."""
    answer = batch.segments.answer_mask
    dirty = dataclasses.replace(
        batch,
        old_logprobs=batch.old_logprobs.masked_fill(answer, NAN),
        ref_logprobs=batch.ref_logprobs.masked_fill(answer, NAN),
        token_weights=batch.token_weights.masked_fill(~answer, NAN),
    )
    (out, grad), (expected, expected_grad) = gradient(dirty, loss), gradient(batch, loss)
    assert torch.equal(out.loss, expected.loss)
    assert torch.equal(grad, expected_grad)


@given(BATCHES, LOSSES, st.randoms())
@settings(deadline=None, max_examples=60)
def test_permuting_rows_permutes_the_gradient(batch, loss, random) -> None:
    order = list(range(len(batch.advantages)))
    random.shuffle(order)
    (out, grad), (expected, expected_grad) = gradient(batch.apply(lambda t: t[order]), loss), gradient(batch, loss)
    torch.testing.assert_close(out.loss, expected.loss)
    torch.testing.assert_close(grad, expected_grad[order])


@given(BATCHES, LOSSES)
@settings(deadline=None, max_examples=60)
def test_loss_is_the_weighted_sum_of_its_terms(batch, loss) -> None:
    out = loss(batch)
    coefficients = {"trace": 1.0, "marker": 0.3, "answer": 1.0, "kl": loss.kl_coef}
    assert set(out.terms) == set(coefficients) - (set() if loss.kl_coef else {"kl"})
    torch.testing.assert_close(out.loss, sum(coefficients[name] * value for name, value in out.terms.items()))


def test_gradient_of_each_token_on_policy() -> None:
    batch = make([(2, 1, 2), (1, 1, 1)], [True, False], padding=1)
    batch.old_logprobs, batch.token_weights = batch.logprobs, torch.full_like(batch.logprobs, 2.0)
    batch.advantages = torch.tensor([0.5, -3.0], dtype=torch.float64)
    _, grad = gradient(batch, NRTLoss(reduction=SequenceSumConstant(1)))
    a, b = -0.5, 3.0  # minus the advantages: trace and emitted marker; 0.3: forced marker; 2: token weight
    expected = torch.tensor([[a, a, a, -2, -2, 0], [b, -0.3, -2, 0, 0, 0]], dtype=torch.float64) / 2
    torch.testing.assert_close(grad, expected)
    _, authors = gradient(batch, NRTLoss(reduction=SequenceSumConstant(1), forced_marker="authors"))
    expected[1, 1] += b / 2
    torch.testing.assert_close(authors, expected)


@given(BATCHES, LOSSES)
@settings(deadline=None, max_examples=60)
def test_an_advantage_per_token_with_equal_values_is_an_advantage_per_trace(batch, loss) -> None:
    per_token = batch.advantages.unsqueeze(1).expand_as(batch.logprobs).clone()
    (out, grad), (expected, expected_grad) = (
        gradient(dataclasses.replace(batch, advantages=per_token), loss),
        gradient(batch, loss),
    )
    assert torch.equal(out.loss, expected.loss)
    assert torch.equal(grad, expected_grad)
    for name, value in (out.terms | out.metrics).items():
        assert torch.equal(value, (expected.terms | expected.metrics)[name])


def test_advantages_per_token_are_read_only_in_the_trace_term() -> None:
    batch = make([(2, 1, 1), (1, 1, 1)], [True, False], padding=0)
    batch.old_logprobs = batch.logprobs
    batch.advantages = torch.tensor([[0.5, -1.0, 2.0, NAN], [3.0, NAN, NAN, NAN]], dtype=torch.float64)
    _, grad = gradient(batch, NRTLoss(reduction=SequenceSumConstant(1), answer_coef=0.0, marker_coef=0.0))
    expected = torch.tensor([[-0.5, 1.0, -2.0, 0.0], [-3.0, 0.0, 0.0, 0.0]], dtype=torch.float64) / 2
    torch.testing.assert_close(grad, expected)


@each_reduction
def test_all_markers_emitted_gives_no_marker_term_not_nan(reduction) -> None:
    """It is 0/0 in the mean modes of the official code."""
    batch = make([(2, 1, 1), (1, 1, 2)], [True, True])
    out, grad = gradient(batch, NRTLoss(reduction=reduction))
    assert out.terms["marker"] == 0
    assert grad.isfinite().all()
    assert (grad[batch.segments.marker_mask] != 0).any()  # through the trace term


@each_reduction
@pytest.mark.parametrize("term", ["trace", "marker", "answer", "kl"])
def test_a_term_without_tokens_is_zero_with_zero_gradient(reduction, term) -> None:
    batch = make([(0, 0, 0), (0, 0, 0)], [True, False], padding=2)
    batch.logprobs = torch.full_like(batch.logprobs, NAN)
    out, grad = gradient(batch, NRTLoss(reduction=reduction, kl_coef=1.0))
    assert out.terms[term] == 0
    assert out.loss == 0
    assert (grad == 0).all()


def test_divisor_reaches_the_loss_and_padding_does_not() -> None:
    """In the official code the padded width is the divisor instead of 512."""
    batch = make([(2, 1, 1), (1, 1, 2)], [True, False], padding=0)
    wide = make([(2, 1, 1), (1, 1, 2)], [True, False], padding=0)
    for name in ("logprobs", "old_logprobs", "token_weights", "ref_logprobs"):
        setattr(wide, name, torch.nn.functional.pad(getattr(batch, name), (0, 9)))
    wide.segments = batch.segments.apply(lambda t: torch.nn.functional.pad(t, (0, 9)) if t.dim() == 2 else t)
    torch.testing.assert_close(NRTLoss()(wide).loss, NRTLoss()(batch).loss)
    double = NRTLoss(reduction=SequenceSumConstant(1024))
    torch.testing.assert_close(2 * double(batch).loss, NRTLoss()(batch).loss)


def test_gradient_flows_into_logprobs_only() -> None:
    batch = make([(2, 1, 1)], [False])
    for name in ("old_logprobs", "advantages", "token_weights", "ref_logprobs"):
        getattr(batch, name).requires_grad_()
    batch.logprobs.requires_grad_()
    NRTLoss(kl_coef=0.1)(batch).loss.backward()
    assert batch.logprobs.grad is not None
    assert batch.old_logprobs.grad is batch.advantages.grad is batch.token_weights.grad is None
    assert batch.ref_logprobs.grad is None


def test_a_term_with_coefficient_zero_is_excluded_even_if_infinite() -> None:
    batch = make([(2, 1, 1)], [True])
    batch.logprobs[0, 3] = -INF  # an impossible answer token
    out, grad = gradient(batch, NRTLoss(answer_coef=0.0))
    assert out.terms["answer"] == INF
    assert out.loss.isfinite()
    assert grad.isfinite().all()
    out, grad = gradient(batch, NRTLoss(answer_coef=0.0, trace_coef=0.0, marker_coef=0.0))
    assert out.loss == 0
    assert (grad == 0).all()


def test_metrics() -> None:
    batch = make([(2, 1, 2), (1, 1, 1)], [True, False], padding=0)
    batch.logprobs = torch.zeros_like(batch.logprobs) - 1
    ratios = torch.tensor([[2.0, 0.5, 1.0, 9.0, 9.0], [1.5, 9.0, 9.0, 9.0, 9.0]], dtype=torch.float64)
    batch.old_logprobs = batch.logprobs - ratios.log()
    batch.advantages = torch.tensor([1.0, -1.0], dtype=torch.float64)
    out = NRTLoss()(batch)
    metrics = out.metrics
    assert metrics["ratio_mean"].item() == pytest.approx((2 + 0.5 + 1 + 1.5) / 4)
    assert metrics["ratio_max"].item() == pytest.approx(2)
    assert metrics["clip_share"].item() == pytest.approx(1 / 4)  # the ratio 2.0 with a positive advantage
    assert metrics["answer_nll"].item() == pytest.approx(1)
    assert out.counts == {"ratio_mean": 4, "clip_share": 4, "answer_nll": 3, "kl": 4}
    assert "kl" not in NRTLoss()(dataclasses.replace(batch, ref_logprobs=None)).metrics


def test_kl_counts_sampled_tokens_only() -> None:
    batch = make([(1, 1, 1), (1, 1, 1)], [True, False], padding=0)
    loss = NRTLoss(kl_coef=1.0, kl=K2(), reduction=TokenMean(), trace_coef=0.0, answer_coef=0.0, marker_coef=0.0)
    out, grad = gradient(batch, loss)
    sampled = torch.tensor([[True, True, False], [True, False, False]])
    expected = 0.5 * ((batch.logprobs - batch.ref_logprobs)[sampled] ** 2).mean()
    torch.testing.assert_close(out.terms["kl"], expected)
    torch.testing.assert_close(out.metrics["kl"], expected)
    assert ((grad != 0) == sampled).all()


@pytest.mark.parametrize("surrogate", [CISPO(), ClippedRatio()], ids=repr)
def test_clipped_tokens_leave_the_denominator_only_if_the_surrogate_drops_them(surrogate) -> None:
    batch = make([(2, 0, 0)], [True], padding=0)
    batch.logprobs = torch.tensor([[-1.0, -1.0]], dtype=torch.float64)
    batch.old_logprobs = torch.tensor([[-1.0, -3.0]], dtype=torch.float64)  # the second is clipped
    batch.advantages = torch.tensor([1.0], dtype=torch.float64)
    out, grad = gradient(batch, NRTLoss(surrogate=surrogate, reduction=TokenMean()))
    assert out.metrics["clip_share"] == 0.5
    torch.testing.assert_close(grad, torch.tensor([[-1.0, 0.0]], dtype=grad.dtype) / (1 if surrogate == CISPO() else 2))


def test_half_precision_is_computed_in_float32() -> None:
    batch = make([(2, 1, 2), (1, 1, 1)], [True, False])
    names = ("logprobs", "old_logprobs", "token_weights", "ref_logprobs", "advantages")
    half = dataclasses.replace(batch, **{name: getattr(batch, name).bfloat16() for name in names})
    out, grad = gradient(half, NRTLoss(kl_coef=0.1))
    assert out.loss.dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in (out.terms | out.metrics).values())
    assert grad.isfinite().all()


def test_kl_without_a_reference_is_refused() -> None:
    batch = dataclasses.replace(make([(1, 1, 1)], [True]), ref_logprobs=None)
    with pytest.raises(InputError, match=r"kl_coef=0\.1.*ref_logprobs"):
        NRTLoss(kl_coef=0.1)(batch)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("token_weights", (1, 2)),
        ("old_logprobs", (1, 1)),
        ("ref_logprobs", (2, 4)),
        ("sampling_logprobs", (4,)),
        ("advantages", (2,)),
        ("advantages", (1, 3)),
        ("advantages", (1, 1)),
    ],
)
def test_wrong_shapes_are_refused(name, shape) -> None:
    batch = dataclasses.replace(make([(1, 1, 1)], [True]), **{name: torch.ones(shape)})
    with pytest.raises(InputError, match=rf"{name}.*{re.escape(str(list(shape)))}"):
        NRTLoss()(batch)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trace_coef": -1.0}, r"trace_coef=-1\.0"),
        ({"kl_coef": NAN}, "kl_coef=nan"),
        ({"forced_marker": "author"}, "forced_marker='author'.*'excluded', 'authors'"),
    ],
)
def test_impossible_settings_are_refused(arguments, message) -> None:
    with pytest.raises(InputError, match=message):
        NRTLoss(**arguments)


def test_defaults_are_the_authors_coefficients() -> None:
    assert NRTLoss() == NRTLoss(CISPO(0.8, 1.28, 0.8, 1.28), SequenceSumConstant(512), 1.0, 0.3, 1.0, 0.0, K3())
