import logging

import pytest
from lightning.pytorch.loggers import CSVLogger
from short_runs import nrt_module, registers

from nrt_lightning import InputError, RunReport, Sampling

SAMPLING = Sampling(group_size=2, max_trace_tokens=4)


def fit(trainer, tmp_path, callback, **settings):
    folder = {"logger": CSVLogger(tmp_path), "default_root_dir": tmp_path, "log_every_n_steps": 1}
    made = trainer(callbacks=[callback], max_steps=1, **folder, **settings)
    made.fit(nrt_module(sampling=SAMPLING), registers())
    return made


def test_the_page_is_written_at_the_end_and_its_path_is_the_last_line(quiet_trainer, tmp_path, capsys):
    fit(quiet_trainer, tmp_path, RunReport())
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {tmp_path / 'report.html'}"
    assert 'id="data"' in (tmp_path / "report.html").read_text()


def test_an_error_is_one_line_and_fails_no_run(quiet_trainer, tmp_path, capsys, caplog, monkeypatch):
    def broken(*args):
        raise RuntimeError("the disk\nis full")

    monkeypatch.setattr("nrt_lightning.callbacks.run_report.write_report", broken)
    with caplog.at_level(logging.WARNING):
        made = fit(quiet_trainer, tmp_path, RunReport("page.html"))
    assert made.global_step == 1
    [said] = [record.getMessage() for record in caplog.records if "RunReport" in record.getMessage()]
    assert "the disk is full" in said
    assert "report:" not in capsys.readouterr().out


def test_a_path_that_cannot_be_written_is_refused_before_training(quiet_trainer, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"RunReport\.path=.*file"):
        fit(quiet_trainer, tmp_path, RunReport("file/report.html"))


def test_nothing_is_written_in_a_trial(quiet_trainer, tmp_path):
    fit(quiet_trainer, tmp_path, RunReport(), fast_dev_run=True)
    assert not (tmp_path / "report.html").exists()
