"""`nrt-lightning preflight` on the quickstart's config: it tells a base that can learn from one that cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.small_runs import CONFIGS, QUICKSTART
from nrt_lightning import InputError
from nrt_lightning.cli.main import run


def preflight(*options: str) -> dict:
    run(["preflight", "--config", QUICKSTART, "--json", "figures.json", *options])
    return json.loads(Path("figures.json").read_text())


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("embedded"))
        patch.setenv("PL_GLOBAL_SEED", "0")
        figures = preflight("--rows=64")
        assert {path.name for path in Path().iterdir()} == {"figures.json"}, "nothing else is left behind"
        return figures


def test_the_embedded_base_can_start(embedded: dict) -> None:
    assert embedded["verdict"]["can_start"] == "yes"
    assert embedded["checked"]
    assert 0.05 < embedded["useful"]["low"] < embedded["useful"]["value"] < embedded["useful"]["high"] < 0.3
    assert embedded["useful_groups"] > 0.4
    assert (embedded["rows"], embedded["group_size"], embedded["max_trace_tokens"]) == (64, 8, 32)


def test_random_weights_cannot() -> None:
    figures = preflight("--rows=64", "--model.policy.weights=random")
    assert figures["verdict"]["can_start"] == "no"
    assert "another question" in figures["verdict"]["reason"]
    assert any(knob.startswith("policy.model:") for knob in figures["verdict"]["knobs"])
    assert figures["aggregations"]["log_prob"]["groups_with_gain"] > 0.8, "a gain alone says nothing"


def test_the_base_reads_answers_off_its_own_traces_only(embedded: dict) -> None:
    confidence = {name: embedded[name]["confidence"] for name in embedded if name.startswith("after")}
    assert confidence["after_best_trace"] > 0.5
    assert confidence["after_best_trace"] > 2 * confidence["after_best_borrowed_trace"]
    assert embedded["specific_gain_z"] > 5


def test_every_aggregation_is_judged(embedded: dict) -> None:
    assert len(embedded["aggregations"]) == 6
    assert embedded["aggregator"] == "weighted_sum_neg_log_prob"
    for figures in embedded["aggregations"].values():
        assert figures["groups_with_gain"] > 0.5
        assert figures["right_first"] > embedded["right_first_by_chance"] + 0.3
        assert 0 <= figures["zero_variance"] <= 0.1


def test_ends_of_traces(embedded: dict) -> None:
    assert embedded["ended_by_marker"] + embedded["ended_by_eos"] + embedded["cut"] == pytest.approx(1)
    assert embedded["ended_by_eos"] == 0
    assert embedded["ended_by_marker"] > 0.5


def test_the_report_says_it_in_words_and_lines_that_fit(capsys: pytest.CaptureFixture[str]) -> None:
    preflight("--rows=16", "--model.sampling.max_trace_tokens=8", "--model.sampling.suppress_eos=false",
              "--trainer.enable_progress_bar=false")  # fmt: skip
    report = capsys.readouterr().out
    report = report[report.index("embedded:registers-base: 16 questions") :]
    assert "Can NRT start from here?" in report
    assert "weighted_sum_neg_log_prob *" in report
    assert "sampling.max_trace_tokens:" in report
    assert max(map(len, report.splitlines())) <= 100


def test_training_rows_serve_where_there_are_no_others() -> None:
    assert preflight("--rows=6", "--data.val=null", "--data.max_train_rows=40")["rows"] == 6


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(InputError, match="rows=1 "):
        preflight("--rows=1")
    with pytest.raises(InputError, match="model=SFTModule"):
        preflight("--rows=4", "--config", str(CONFIGS / "methods" / "sft.yaml"))
    Path("file").write_text("")
    with pytest.raises(InputError, match="--json='file'"):
        preflight("--rows=4", "--json=file/figures.json")
