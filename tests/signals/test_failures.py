"""Many rollouts read at once, and signals that fail for some of them."""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass

import pytest
import torch
from methods.hand_made import GROUP, HandMade

from nrt_lightning import (
    AdvantageEstimator,
    AnswerConfidence,
    BatchNormalized,
    ClippedAdvantages,
    FunctionSignal,
    GeometricMean,
    GeometricMeanOfSignals,
    GroupNormalized,
    InputError,
    LeaveOneOut,
    MultiSampleBound,
    Policy,
    RolloutSignal,
    ScoreSignal,
    TextSignal,
    WeightedSumOfSignals,
)
from nrt_lightning.signals import RolloutEvidence, RolloutText, ScoreEvidence
from nrt_lightning.structures import Row

CALLS: list[int] = []  # how many rollouts each call got
COMBINERS = [WeightedSumOfSignals, GeometricMeanOfSignals]


@pytest.fixture(scope="module")
def evidence() -> RolloutEvidence:
    batch = HandMade.make(Policy("embedded:registers-base").load())
    return RolloutEvidence(batch.policy, batch.prompts(response=False))


def texts(count: int) -> list[RolloutText]:
    return [RolloutText("q", "a", f"{n}", True, "a", True, Row(f"{n}", [])) for n in range(count)]


@dataclass(frozen=True)
class Judge(TextSignal):
    """A judge behind a server that answers the later rollouts first."""

    concurrency: int = 1

    def read(self, text: RolloutText) -> float:
        busy.append(1)
        peak.append(len(busy))
        together[0].wait(timeout=60)
        time.sleep(0.003 * (15 - int(text.trace) % 16))
        busy.pop()
        return float(text.trace)


busy: list[int] = []
peak: list[int] = []
together: list[threading.Barrier] = []  # which no read passes before as many others are being read


@pytest.mark.parametrize("concurrency", [1, 4, 16])
def test_reads_are_concurrent_bounded_and_in_order(concurrency: int) -> None:
    peak.clear()
    together[:] = [threading.Barrier(concurrency)]
    assert Judge(concurrency).read_all(texts(64)) == list(range(64))
    assert max(peak) == concurrency


def test_one_at_a_time_stays_in_the_thread_of_the_caller() -> None:
    class Thread(TextSignal):
        def read(self, text: RolloutText) -> float:
            return float(threading.current_thread() is threading.main_thread())

    assert Thread().read_all(texts(3)) == [1, 1, 1]


def fails_for_c(text: RolloutText) -> float:
    if text.trace.startswith("c"):
        raise TimeoutError("no answer")
    return 1.0


def nan_for_c(text: RolloutText) -> float:
    return math.nan if text.trace.startswith("c") else 1.0


def nothing_for_c(text: RolloutText) -> float | None:
    return None if text.trace.startswith("c") else 1.0


def negative_for_c(text: RolloutText) -> float:
    return -1.0 if text.trace.startswith("c") else 1.0


def all_lengths(many: list[RolloutText]) -> list[float]:
    CALLS.append(len(many))
    return [float(len(text.trace)) for text in many]


def nan_for_c_in_a_list(many: list[RolloutText]) -> list[float | None]:
    return [nothing_for_c(text) for text in many]


def one_too_few(many: list[RolloutText]) -> list[float]:
    return [1.0] * (len(many) - 1)


def breaks(many: list[RolloutText]) -> list[float]:
    raise ConnectionError("the server is gone")


def function(name: str, **settings) -> FunctionSignal:
    return FunctionSignal(f"signals.test_failures.{name}", minimum=0.0, **settings)


FAILING = [
    (function("fails_for_c"), "TimeoutError"),
    (function("fails_for_c", concurrency=3), "TimeoutError"),
    (function("nan_for_c"), "NaN"),
    (function("nothing_for_c"), "TypeError"),
    (function("negative_for_c"), r"-1\.0.*minimum=0\.0"),
    (function("nan_for_c_in_a_list", batched=True), "TypeError"),
]


@pytest.mark.parametrize(("signal", "cause"), FAILING)
@pytest.mark.parametrize("combiner", COMBINERS)
def test_a_rollout_that_cannot_be_read_is_left_out(
    combiner: type, signal: FunctionSignal, cause: str, evidence: RolloutEvidence, caplog: pytest.LogCaptureFixture
) -> None:
    good, failed = function("all_lengths", batched=True), [text.trace.startswith("c") for text in evidence.texts]
    signals = combiner({"judge": signal, "good": good})
    with caplog.at_level(logging.WARNING):
        values = signals.measure(evidence)
    assert values["judge"].isnan().tolist() == failed
    assert (values["judge"][~torch.tensor(failed)] == 1).all()
    assert values["good"].isfinite().all()
    assert signals.combine(values).isnan().tolist() == failed
    (record,) = caplog.records
    first = evidence.prompts.rows[failed.index(True) // GROUP].id
    assert all(part in record.message for part in ("'judge'", f"{sum(failed)} of 8", f"'{first}'", "on_error"))
    with pytest.raises(InputError, match=rf"'judge'.*'{first}'.*{cause}.*on_error"):
        combiner({"judge": signal}, on_error="raise").measure(evidence)


def test_a_batched_function_is_called_once(evidence: RolloutEvidence) -> None:
    CALLS.clear()
    signal = function("all_lengths", batched=True)
    assert signal.measure(evidence).tolist() == [len(text.trace) for text in evidence.texts]
    assert CALLS == [8]
    assert signal.read(evidence.texts[0]) == len(evidence.texts[0].trace)


@pytest.mark.parametrize("settings", [{"concurrency": 0}, {"concurrency": 4, "batched": True}])
def test_concurrency_that_cannot_work_is_refused(settings) -> None:
    with pytest.raises(InputError, match=rf"concurrency={settings['concurrency']}"):
        function("all_lengths", **settings)


class Breaking(RolloutSignal):
    minimum = 0.0

    def __init__(self, error: Exception) -> None:
        self.error = error

    def measure(self, evidence: RolloutEvidence) -> torch.Tensor:
        raise self.error


class BreakingScore(ScoreSignal):
    minimum = 0.0

    def __init__(self, value: torch.Tensor | None = None) -> None:
        self.value = value

    def __call__(self, evidence: ScoreEvidence) -> torch.Tensor:
        if self.value is None:
            raise RuntimeError("shapes differ")
        return self.value


def scores(evidence: RolloutEvidence) -> ScoreEvidence:
    rollouts = evidence.rollouts
    return ScoreEvidence(rollouts, -torch.ones(8, 3), torch.ones(8, 3, dtype=torch.bool))


def test_a_signal_that_breaks_leaves_out_every_rollout(
    evidence: RolloutEvidence, caplog: pytest.LogCaptureFixture
) -> None:
    for signal in (Breaking(KeyError("x")), function("breaks", batched=True)):
        caplog.clear()
        assert WeightedSumOfSignals({"s": signal}).measure(evidence)["s"].isnan().all()
        (record,) = caplog.records
        assert "8 of 8" in record.message
        with pytest.raises(InputError, match=r"'s'.*8 of 8"):
            WeightedSumOfSignals({"s": signal}, on_error="raise").measure(evidence)


def test_signals_of_log_probs_are_covered_too(evidence: RolloutEvidence, caplog: pytest.LogCaptureFixture) -> None:
    some = torch.tensor([1.0] * 5 + [math.nan] + [1.0] * 2)
    for signal, left_out in ((BreakingScore(), [True] * 8), (BreakingScore(some), some.isnan().tolist())):
        caplog.clear()
        signals = WeightedSumOfSignals({"s": signal, "c": AnswerConfidence(GeometricMean())})
        values = signals.values(scores(evidence))
        assert signals.combine(values).isnan().tolist() == left_out
        assert values["c"].isfinite().all()
        assert len(caplog.records) == 1
        with pytest.raises(InputError, match="'s'"):
            WeightedSumOfSignals({"s": signal}, on_error="raise").values(scores(evidence))


def test_minus_infinity_is_no_failure(evidence: RolloutEvidence, caplog: pytest.LogCaptureFixture) -> None:
    low = torch.full((8,), -math.inf)
    values = WeightedSumOfSignals({"s": BreakingScore(low)}, on_error="raise").values(scores(evidence))
    assert torch.equal(values["s"], low)
    assert not caplog.records


@pytest.mark.parametrize("on_error", ["leave_out", "raise"])
def test_mistakes_of_the_code_are_raised_either_way(on_error: str, evidence: RolloutEvidence) -> None:
    def measure(signal) -> None:
        WeightedSumOfSignals({"s": signal}, on_error=on_error).measure(evidence)

    with pytest.raises(InputError, match=r"one_too_few.* 7 .* 8 "):
        measure(function("one_too_few", batched=True))
    with pytest.raises(InputError, match="my setting"):
        measure(Breaking(InputError("my setting")))
    with pytest.raises(torch.OutOfMemoryError):
        measure(Breaking(torch.OutOfMemoryError("8 GiB")))
    with pytest.raises(InputError, match=r"signal s.*\[7\].*\[8\]"):
        WeightedSumOfSignals({"s": BreakingScore(torch.ones(7))}, on_error=on_error).values(scores(evidence))


@pytest.mark.parametrize(
    "estimator",
    [
        GroupNormalized(), GroupNormalized(baseline="clip"), LeaveOneOut(), BatchNormalized(),
        BatchNormalized(center="batch"), MultiSampleBound(), ClippedAdvantages(),
    ],
)  # fmt: skip
def test_the_others_have_the_advantages_that_they_have_without_it(estimator: AdvantageEstimator) -> None:
    values = torch.tensor([-1.0, math.nan, -3.0, -2.0, -1.0, -2.0, -4.0, -4.0])
    groups, baseline, kept = torch.arange(8) // GROUP, torch.full((8,), -2.5), values.isfinite()
    advantages = estimator(values, groups, baseline)
    assert advantages[1] == 0
    torch.testing.assert_close(advantages[kept], estimator(values[kept], groups[kept], baseline[kept]))
