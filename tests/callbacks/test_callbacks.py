import json

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import CustomProgress
from lightning.pytorch.loggers import TensorBoardLogger
from short_runs import nrt_module, registers
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nrt_lightning import ExportPolicy, InputError, Policy, PredictionWriter, ResultsFile, TraceSamples, WholeModel
from nrt_lightning.callbacks import generation_progress as progress_file
from nrt_lightning.callbacks import output
from nrt_lightning.callbacks.generation_progress import generation_progress


@pytest.fixture
def trainer(tmp_path):
    def make(**settings) -> L.Trainer:
        L.seed_everything(7)
        defaults = {
            "accelerator": "cpu",
            "max_steps": 3,
            "max_epochs": -1,
            "default_root_dir": tmp_path,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "limit_val_batches": 0,
        }
        return L.Trainer(**defaults | settings)

    return make


def test_samples_go_to_tensorboard_and_terminal(trainer, tmp_path, capsys):
    logger = TensorBoardLogger(tmp_path, name="tb", version="v")
    made = trainer(logger=logger, callbacks=[TraceSamples(every_n_steps=2, print_samples=True)])
    made.fit(nrt_module(), registers())
    events = EventAccumulator(str(tmp_path / "tb" / "v"))
    events.Reload()
    (tensor,) = events.Tensors("samples/train/text_summary")
    text = tensor.tensor_proto.string_val[0].decode()
    assert tensor.step == 2
    assert "**Best trace**: reward" in text
    assert "**Worst trace**: reward" in text
    assert "step 2" in capsys.readouterr().out


def test_results_of_two_runs_stand_side_by_side(trainer, tmp_path, capsys):
    file = tmp_path / "deep" / "results.json"
    for name in ("nrt", "again"):
        made = trainer(callbacks=[ResultsFile(str(file), name)])
        module = nrt_module()
        made.fit(module, registers())
        made.test(module, registers(), verbose=False)
    results = json.loads(file.read_text())
    assert set(results) == {"nrt", "again"}
    assert {"exact_match", "exact_match_forced", "seconds"} <= results["nrt"].keys()
    assert results["nrt"]["seconds"] > 0
    table = capsys.readouterr().out.strip().split("\n\n")[-2].strip().splitlines()
    assert [line.split(" | ")[0].strip() for line in table if "-|-" not in line] == ["run", "nrt", "again"]


def test_a_file_that_is_no_results_file_is_left_alone(trainer, tmp_path):
    file = tmp_path / "results.json"
    file.write_text("{half a fi")
    with pytest.raises(InputError, match=r"results\.json"):
        trainer(callbacks=[ResultsFile(str(file), "nrt")]).fit(nrt_module(), registers())
    assert file.read_text() == "{half a fi"


def predict(trainer, path, **settings):
    data = registers(predict=registers().sources["test"])
    return trainer(callbacks=[PredictionWriter(str(path), **settings)]).predict(nrt_module(), data)


def test_predictions_are_lines_of_json(trainer, tmp_path):
    returned = predict(trainer, tmp_path / "new" / "p.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "new" / "p.jsonl").read_text().splitlines()]
    assert lines == [row for batch in returned for row in batch]
    assert len(lines) == 6


def test_predictions_overwrite_only_when_told(trainer, tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text("precious\n")
    with pytest.raises(InputError, match=r"p\.jsonl.*overwrite=true"):
        predict(trainer, file)
    assert file.read_text() == "precious\n"
    predict(trainer, file, overwrite=True)
    assert len(file.read_text().splitlines()) == 6


def test_predictions_that_cannot_be_written_are_refused_before_computing(trainer, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"predictions.path=.*p\.jsonl"):
        predict(trainer, tmp_path / "file" / "p.jsonl")


def test_progress_under_the_tqdm_bar(trainer, monkeypatch, capsys):
    monkeypatch.setattr(output, "is_default", lambda bar: False)
    monkeypatch.setattr(progress_file, "DELAY", 0.0)
    trainer(enable_progress_bar=True, callbacks=[TQDMProgressBar()], max_steps=2).fit(nrt_module(), registers())
    assert "sampling traces" in capsys.readouterr().err


def test_progress_under_the_rich_bar(trainer, monkeypatch):
    monkeypatch.setattr(output, "is_default", lambda bar: False)
    monkeypatch.setattr(progress_file, "DELAY", -1.0)
    shown, update = [], CustomProgress.update

    def spy(self, task, **values):
        if "visible" in values and self._tasks[task].description == "sampling traces":
            shown.append(values)
        return update(self, task, **values)

    monkeypatch.setattr(CustomProgress, "update", spy)
    bar = RichProgressBar()
    trainer(enable_progress_bar=True, callbacks=[bar], max_steps=2).fit(nrt_module(), registers())
    assert shown
    assert all(values["visible"] and 0 < values["completed"] <= values["total"] for values in shown)
    assert not any(task.description == "sampling traces" for task in bar.progress.tasks), "removed when done"


def test_no_progress_without_a_bar(trainer):
    with generation_progress(trainer()) as progress:
        assert progress is None


def test_export_is_what_was_trained(trainer, tmp_path):
    directory = tmp_path / "exported"
    module = nrt_module()
    trainer(callbacks=[ExportPolicy(str(directory))]).fit(module, registers())
    again = Policy(str(directory)).load()
    assert again.markup.marker_ids[0] == module.policy.markup.marker_ids[0]
    assert not again.marker_is_new
    for name, weight in module.policy.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
    with pytest.raises(InputError, match="exported"):
        trainer(callbacks=[ExportPolicy(str(directory))]).fit(nrt_module(), registers())


def test_a_base_is_exported_without_the_marker(trainer, tmp_path):
    directory = tmp_path / "base"
    trainer(callbacks=[ExportPolicy(str(directory), WholeModel(marker=False))]).fit(nrt_module(), registers())
    assert Policy(str(directory)).marker_is_new
