"""`trainer.callbacks` in several configs: `callbacks+` adds, `callbacks` replaces and says so."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import yaml

from nrt_lightning.cli.callbacks import last_of_each, names_in, report_replaced
from nrt_lightning.cli.main import run
from nrt_lightning.configs import FOLDER

WATCH = (
    "trainer: {{{key}: [{{class_path: nrt_lightning.RewardCorrectness, init_args: {{every_n_steps: 20, rows: 4}}}}]}}"
)


def callbacks(capsys: pytest.CaptureFixture[str], *configs: str) -> list[str]:
    with pytest.raises(SystemExit):
        run(["fit", *(f"--config={config}" for config in configs), "--print_config"])
    return names_in(yaml.safe_load(capsys.readouterr().out)["trainer"]["callbacks"])


def test_a_watch_keeps_what_the_quickstart_lists(capsys: pytest.CaptureFixture[str]) -> None:
    Path("watch.yaml").write_text(WATCH.format(key="callbacks+"))
    alone = callbacks(capsys, "nrt:quickstart")
    assert {"TraceSamples", "ResultsFile"} <= set(alone)
    assert callbacks(capsys, "nrt:quickstart", "watch.yaml") == [*alone, "RewardCorrectness"]
    assert callbacks(capsys, "watch.yaml", "nrt:quickstart") == ["RewardCorrectness", *alone]


def test_a_method_keeps_the_watch_and_renames_the_results(capsys: pytest.CaptureFixture[str]) -> None:
    Path("watch.yaml").write_text(WATCH.format(key="callbacks+"))
    listed = callbacks(capsys, "nrt:quickstart", "watch.yaml", "nrt:methods/sft")
    assert {"RewardCorrectness", "TraceSamples"} <= set(listed)
    both = [{"class_path": "nrt_lightning.ResultsFile", "init_args": {"name": name}} for name in ("nrt", "sft")]
    assert last_of_each([*both, {"class_path": "nrt_lightning.TraceSamples"}])[0]["init_args"]["name"] == "sft"
    assert last_of_each(None) is None
    axes = [{"class_path": "nrt_lightning.StepAxis", "init_args": {"unit": unit}} for unit in ("rollouts", "steps")]
    assert last_of_each(axes) == axes[1:]


def test_a_list_that_replaces_another_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    Path("watch.yaml").write_text(WATCH.format(key="callbacks"))
    with caplog.at_level(logging.WARNING):
        report_replaced([FOLDER / "quickstart.yaml", "watch.yaml"])
    for word in ("watch.yaml", "TraceSamples", "ResultsFile", "callbacks+:"):
        assert word in caplog.text
    caplog.clear()
    report_replaced(["watch.yaml", FOLDER / "quickstart.yaml", "missing.yaml"])
    assert caplog.text == ""


def test_configs_that_change_others_add_to_their_callbacks() -> None:
    """Only the export of another base, and the servers' experiment, take the place of a list."""
    plain = {
        path.stem for path in FOLDER.rglob("*.yaml") if "  callbacks:" in path.read_text().replace("\ncallbacks", "")
    }
    assert plain == {"seed_1", "made_up_reports_base", "vllm_servers"}
