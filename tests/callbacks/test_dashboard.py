"""What dashboards show: groups, charts, tables, steps; and the page that explains every logged value."""

import csv
import json
import re
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from short_runs import fast, nrt_module, registers
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from nrt_lightning import (
    CISPO,
    Dashboard,
    EMAReference,
    Format,
    GroupNormalized,
    NRTLoss,
    Policy,
    Repetition,
    Sampling,
    SFTModule,
    StepAxis,
    TraceSamples,
    WeightedSumOfSignals,
    ZeroVarianceFilter,
)
from nrt_lightning.callbacks.run_lines import RunLines
from nrt_lightning.metrics.logged_values import CHARTS, describe, logged_values, logged_values_page

PAGE = Path(__file__).parents[2] / "docs" / "logged_values.md"
SHORT = {
    "max_steps": 2, "log_every_n_steps": 1, "limit_val_batches": 1, "check_val_every_n_epoch": None,
    "val_check_interval": 1,
}  # fmt: skip
STILL = {"train/ratio_mean", "train/ratio_max", "train/clip_share", "train/advantage_mean"}


def events_in(directory) -> EventAccumulator:
    events = EventAccumulator(str(directory), size_guidance={"tensors": 0})
    events.Reload()
    return events


def names_in(directory) -> set[str]:
    """Names in a run's history."""
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return {name for row in rows for name in row} - {"step", "prompts", "rollouts", "seconds"}


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A run in TensorBoard's and CSV's files, and what callbacks saw."""
    import lightning as L

    folder = tmp_path_factory.mktemp("shown")
    L.seed_everything(7)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, default_root_dir=folder, enable_checkpointing=False,
        enable_progress_bar=False, logger=[TensorBoardLogger(folder, "", "tb"), CSVLogger(folder, "", "csv")], **SHORT,
    )  # fmt: skip
    module = nrt_module()
    trainer.fit(module, registers())
    seen = {name: float(value) for name, value in trainer.callback_metrics.items()}
    trainer.test(module, registers(), verbose=False)
    return folder, events_in(folder / "tb"), seen


def test_scalars_are_grouped_by_question_under_their_own_names(shown):
    folder, events, _ = shown
    tags = set(events.Tags()["scalars"])
    assert {"1_learns/val/exact_match", "2_gains/train/gain", "3_healthy/rollout/marker_rate"} <= tags
    assert {tag.partition("/")[0] for tag in tags} == {"1_learns", "2_gains", "3_healthy", "4_speed", "5_details"}
    assert {tag.partition("/")[2] for tag in tags} < names_in(folder / "tb") | {"epoch"}


def test_what_cannot_move_is_not_logged_but_can_be_monitored(shown):
    folder, events, seen = shown
    assert seen.keys() >= STILL
    assert not names_in(folder / "tb") & STILL
    header = next(csv.reader((folder / "csv" / "metrics.csv").open()))
    assert not {*header} & STILL
    assert "val/exact_match" in header
    assert not [tag for tag in events.Tags()["scalars"] if "test/" in tag or tag.endswith("epoch")]


def test_charts_join_what_belongs_together_and_only_what_was_logged(shown):
    _, events, _ = shown
    tensor = events.Tensors("custom_scalars__config__")[-1].tensor_proto
    layout = layout_pb2.Layout.FromString(tensor.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for part in layout.category for chart in part.chart}
    assert [part.title for part in layout.category][:2] == ["does it learn", "do traces help"]
    tags = events.Tags()["scalars"]
    assert all(any(re.match(pattern, tag) for pattern in patterns for tag in tags) for patterns in charts.values())
    assert sum(bool(re.match(pattern, tag)) for pattern in charts["exact match"] for tag in tags) == 3
    assert "off-policy: ratio" not in charts


def test_the_figures_of_a_test_are_a_table(shown):
    folder, events, _ = shown
    (table,) = events.Tensors("test/text_summary")
    assert "| exact match |" in table.tensor_proto.string_val[0].decode()
    assert "test/exact_match" in next(csv.reader((folder / "csv" / "metrics.csv").open()))


def test_plain_names_can_be_kept_and_steps_counted_in_rollouts(quiet_trainer, tmp_path):
    loggers = [TensorBoardLogger(tmp_path, "", "tb"), CSVLogger(tmp_path, "", "csv")]
    callbacks = [StepAxis("rollouts"), Dashboard(grouped=False), TraceSamples(1), LearningRateMonitor("step")]
    quiet_trainer(logger=loggers, callbacks=callbacks, **SHORT).fit(nrt_module(), registers())
    events = events_in(tmp_path / "tb")
    for name in ("train/loss", "val/exact_match"):
        assert [point.step for point in events.Scalars(name)] == [12, 24], "4 traces for each of 3 prompts"
    assert [point.step for point in events.Tensors("samples/train/text_summary")] == [12, 24]
    rows = list(csv.DictReader((tmp_path / "csv" / "metrics.csv").open()))
    assert {row["step"] for row in rows if row["train/loss"]} == {"12", "24"}
    assert [json.loads(line)["step"] for line in (tmp_path / "tb" / "metrics.jsonl").open()][-1] == 2


def test_wandb_has_the_groups_one_growing_table_and_the_figures(quiet_trainer, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed: pip install wandb")
    from lightning.pytorch.loggers import WandbLogger

    monkeypatch.setenv("WANDB_SILENT", "true")
    logger, samples = WandbLogger(save_dir=str(tmp_path), offline=True), TraceSamples(1, val_rows=2)
    made = quiet_trainer(logger=logger, callbacks=[samples], **SHORT)
    module, logged = nrt_module(), []
    monkeypatch.setattr(logger.experiment, "log", lambda values, **kwargs: logged.append(dict(values)))
    made.fit(module, registers())
    made.test(module, registers(), verbose=False)
    names = {name for values in logged for name in values}
    assert {"1_learns/val/exact_match", "2_gains/train/gain", "samples", "test"} <= names
    assert not [name for name in names if name.startswith("test/")]
    table = next(values["samples"] for values in logged if "samples" in values)
    assert table is samples.tables[0].table
    assert table.log_mode == "INCREMENTAL"
    assert len(table.data) == 2 * (2 + 2), "best and worst of training and two rows of validation, twice"
    assert table.columns[:2] == ["step", "prompts"]
    panels = {name: chart for values in logged for name, chart in values.items() if hasattr(chart, "spec")}
    assert {"1_learns/exact match", "1_learns/confidence", "3_healthy/trace length"} <= panels.keys()
    kept = [line for line in RunLines(tmp_path / "metrics.jsonl").read() if "val/confidence" in line]
    wanted = [[line["step"], name, line[name]] for name in ("val/confidence", "val/confidence_without_trace")
              for line in kept]  # fmt: skip
    assert sorted(panels["1_learns/confidence"].table.data) == sorted(wanted)
    summary = dict(logger.experiment.summary)
    assert {"val/exact_match", "test/exact_match"} <= summary.keys()
    logger.experiment.finish()
    assert (tmp_path / "samples.jsonl").exists()


CONFIGURATIONS = {
    "nrt": ({}, {}, {}),
    "windows": ({"loss": NRTLoss(surrogate=CISPO())}, {"window": 4}, {"accumulate_grad_batches": 2, "max_steps": 4}),
    "accumulated": ({"max_tokens_per_micro_batch": 200}, {"window": 2}, {"accumulate_grad_batches": 2}),
    "reference": ({"reference": EMAReference(), "loss": NRTLoss(kl_coef=0.1)}, {}, {}),
    "filters": (
        {"filters": [ZeroVarianceFilter()], "sampling": Sampling(group_size=4, max_trace_tokens=12, refill_rounds=1)},
        {}, {},
    ),
    "signals": (
        {"signals": WeightedSumOfSignals({"format": Format(), "repetition": Repetition()}, {"format": 0.1})},
        {}, {},
    ),
    "single": (
        {
            "sampling": Sampling(group_size=1, max_trace_tokens=12),
            "advantage": GroupNormalized(center=False, scale="none"),
        },
        {}, {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [*CONFIGURATIONS, "sft"])
def test_every_logged_value_is_explained(name, quiet_trainer, tmp_path):
    model, data, settings = CONFIGURATIONS.get(name, ({}, {}, {}))
    policy = Policy("embedded:registers-base")
    module = SFTModule(policy, optimizer=fast) if name == "sft" else nrt_module(**model)
    made = quiet_trainer(logger=CSVLogger(tmp_path, "", "run"), **SHORT | settings)
    made.fit(module, registers(**data))
    made.test(module, registers(**data), verbose=False)
    names = names_in(tmp_path / "run")
    assert [name for name in names if describe(name) is None] == []
    assert bool(names & {"train/ratio_mean"}) == (name == "windows")
    assert bool(names & {"rollout/unique_traces"}) == (name not in ("sft", "single"))
    assert bool(names & {"rollout/refill_rounds"}) == (name == "filters")


def test_the_page_says_what_the_package_says():
    assert logged_values_page() in PAGE.read_text(encoding="utf-8")


def test_charts_are_of_known_values():
    known = logged_values()
    for group, charts in CHARTS.items():
        for names in charts.values():
            assert not set(names) - set(known)
            assert known[names[0]].group == group
