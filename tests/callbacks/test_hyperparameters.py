"""Settings and traces of a run in every logger."""

import json

import pytest
import yaml
from cli.small_runs import CONFIGS, small_args
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from short_runs import nrt_module, registers
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from nrt_lightning.cli.lightning_cli import NRTCLI, make_cli
from nrt_lightning.cli.main import run

LOGGERS = CONFIGS / "loggers"
QUICK = {"max_steps": 2, "limit_val_batches": 1, "check_val_every_n_epoch": None, "val_check_interval": 1}


def hparams(directory) -> tuple[dict, list[str], EventAccumulator]:
    """The settings and the names of the metrics in TensorBoard's HPARAMS."""
    events = EventAccumulator(str(directory))
    events.Reload()
    content = {}
    for tag in events.PluginTagToContent("hparams"):
        data = plugin_data_pb2.HParamsPluginData.FromString(events.PluginTagToContent("hparams")[tag])
        content[data.WhichOneof("data")] = data
    start = content["session_start_info"].session_start_info.hparams
    settings = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.items()}
    metrics = [info.name.tag for info in content["experiment"].experiment.metric_infos]
    assert "session_end_info" in content
    return settings, metrics, events


def test_the_config_reaches_tensorboard_and_csv_by_the_names_of_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loggers = [
        {"class_path": "TensorBoardLogger", "init_args": {"save_dir": str(tmp_path), "name": "", "version": "tb"}},
        {"class_path": "CSVLogger", "init_args": {"save_dir": str(tmp_path), "name": "", "version": "csv"}},
    ]
    run(small_args("fit", tmp_path, f"--trainer.logger={json.dumps(loggers)}", "--data.batch_size=2"))
    settings, metrics, events = hparams(tmp_path / "tb")
    assert settings["data.batch_size"] == 2
    assert settings["model.class_path"] == "nrt_lightning.NRTModule"
    assert settings["model.sampling.group_size"] == 2
    assert settings["model.policy.model"] == "embedded:registers-base"
    assert {"1_learns/val/exact_match", "2_gains/train/gain"} <= set(metrics)
    assert "hp_metric" not in events.Tags()["scalars"]
    for kind in ("tb", "csv"):
        stored = yaml.safe_load((tmp_path / kind / "hparams.yaml").read_text())
        assert stored["model.sampling.group_size"] == 2
        assert not any("init_args" in name for name in stored)


def test_runs_from_python_log_what_is_known_of_them(quiet_trainer, tmp_path):
    loggers = [TensorBoardLogger(tmp_path, "", "tb"), CSVLogger(tmp_path, "", "csv")]
    made = quiet_trainer(logger=loggers, **QUICK)
    module = nrt_module()
    made.fit(module, registers())
    made.test(module, registers(), verbose=False)
    settings, metrics, events = hparams(tmp_path / "tb")
    assert settings["data.batch_size"] == 3
    assert "group_size=4" in settings["model.sampling"]
    assert settings["trainer.max_steps"] == 2
    tag = "1_learns/val/exact_match"
    assert tag in metrics
    assert len(events.Scalars(tag)) == 2, "the values that were logged, and no other"
    assert yaml.safe_load((tmp_path / "csv" / "hparams.yaml").read_text())["model.policy.dtype"] == "float32"


def test_the_settings_reach_wandb(quiet_trainer, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from lightning.pytorch.loggers import WandbLogger

    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(save_dir=str(tmp_path), offline=True)
    quiet_trainer(logger=logger, **QUICK).fit(nrt_module(), registers())
    config = dict(logger.experiment.config)
    assert config["data.batch_size"] == 3
    assert config["model.policy.model"] == "embedded:registers-base"
    logger.experiment.finish()


@pytest.mark.parametrize("path", sorted(LOGGERS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_config_of_a_logger_is_accepted(path, tmp_path):
    pytest.importorskip({"wandb": "wandb", "mlflow": "mlflow"}.get(path.stem, "lightning"))
    cli = make_cli(NRTCLI, [*small_args("fit", tmp_path)[1:], "--config", str(path)], run=False)
    expected = yaml.safe_load(path.read_text())["trainer"]["logger"]["class_path"]
    assert type(cli.trainer.logger).__name__ == expected


def test_there_is_a_config_for_every_promised_logger():
    assert {path.stem for path in LOGGERS.glob("*.yaml")} == {"csv", "mlflow", "tensorboard", "wandb"}
