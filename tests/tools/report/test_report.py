from __future__ import annotations

import json
import os
import re
from collections import Counter
from math import log, sqrt
from pathlib import Path

import pytest
from made_up import HOSTILE, made_up_run, write_lines

from nrt_lightning import InputError
from nrt_lightning.cli.main import run as command
from nrt_lightning.tools.report import write_report
from nrt_lightning.tools.report.history import History
from nrt_lightning.tools.report.page import LARGEST
from nrt_lightning.tools.report.verdict import verdict
from nrt_lightning.tools.report.words import PRIOR, log_odds


def written(folders, tmp_path: Path) -> tuple[str, dict, list[str]]:
    """The page, its data and the notes."""
    notes = write_report(folders, tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    embedded = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert len(embedded) == 1
    return html, json.loads(embedded[0]), notes


def test_runs_have_the_order_in_which_their_folders_are_given(tmp_path):
    folders = [made_up_run(tmp_path / "quick", name) for name in ("b", "a", "c")]
    given = [*folders, tmp_path / "quick", folders[0]]
    assert [run["name"] for run in written(given, tmp_path)[1]["runs"]] == ["b", "a", "c"]


def test_a_page_has_the_runs_of_a_folder_side_by_side(tmp_path):
    made_up_run(tmp_path / "quick")
    made_up_run(tmp_path / "quick", "sft", traces=False)
    html, data, notes = written([tmp_path / "quick"], tmp_path)
    nrt, sft = data["runs"]
    assert (nrt["name"], sft["name"], notes) == ("nrt", "sft", [])
    assert (nrt["module"], sft["module"]) == ("NRTModule", "SFTModule")
    assert nrt["curves"]["series"]["val/exact_match"][19] == pytest.approx(0.3)
    assert nrt["curves"]["axes"]["rollouts"][-1] == 60 * 128
    assert nrt["results"]["confidence"] == 0.5
    assert (len(nrt["samples"]), nrt["words"]["steps"]) == (12, [20, 40, 60])
    assert (sft["words"], sft["samples"][0]["baseline"]) == (None, None)
    assert [sft["samples"][0]["traces"][0][name] for name in ("text", "reward", "trace_tokens")] == [None] * 3
    assert "cut" not in sft["samples"][0]["traces"][0]
    assert [group["title"] for group in data["groups"]][:3] == ["Does it learn", "Do traces help", "Is it healthy"]
    assert len(html) < LARGEST


def test_the_page_loads_nothing(tmp_path):
    made_up_run(tmp_path / "quick")
    html, _, _ = written([tmp_path / "quick"], tmp_path)
    assert "default-src 'none'" in html
    assert not re.findall(r"<(?:script|img|iframe)[^>]*\ssrc=|<link[^>]*href=(?!\"data:)|@import|url\((?!data:)", html)


def test_texts_of_a_run_close_no_element(tmp_path):
    made_up_run(tmp_path / "plain")
    made_up_run(tmp_path / "hostile", hostile=HOSTILE)
    plain, _, _ = written([tmp_path / "plain"], tmp_path)
    html, data, _ = written([tmp_path / "hostile"], tmp_path)
    assert (html.count("</script"), html.count("<!--"), html.count("<img")) == (plain.count("</script"), 0, 0)
    assert data["runs"][0]["samples"][0]["question"].endswith(HOSTILE)


def test_a_page_names_no_home_folder_and_no_secret(tmp_path):
    run = made_up_run(tmp_path / "quick")
    facts = json.loads((run / "run.json").read_text())
    facts["settings"] |= {"hub.token": "hf_secret", "files": ["/Users/ada/b.csv", "C:\\Users\\ada\\c.csv", "~/d/e.csv"]}
    facts["environment"]["cuda"] = "/home/ada/cuda"
    (run / "run.json").write_text(json.dumps(facts))
    html, data, _ = written([tmp_path / "quick"], tmp_path)
    assert not re.search(r"ada|hf_secret", html[html.index('id="data"') : html.rindex("</script>\n<script>")])
    assert data["runs"][0]["settings"]["data.train"] == "…/rows.csv"


def test_half_written_lines_and_lines_of_other_versions_are_counted(tmp_path):
    run = made_up_run(tmp_path / "quick")
    for name in ("metrics.jsonl", "samples.jsonl"):
        with (run / name).open("a") as file:
            file.write('{"step": 61, "train/ga')
    with (run / "samples.jsonl").open("a") as file:
        file.write('\n{"format": 7, "step": 80, "traces": []}\n[1]\n')
    _, data, notes = written([tmp_path / "quick"], tmp_path)
    assert len(data["runs"][0]["samples"]) == 12
    assert [note for note in notes if re.search(r"1 line of metrics.jsonl|3 lines of samples.jsonl", note)] == notes
    assert data["runs"][0]["notes"] == [note.removeprefix("nrt: ") for note in notes]


@pytest.mark.parametrize(
    "line",
    [
        {"step": "x", "traces": []},
        {"step": 1, "traces": 3},
        {"step": 20, "traces": [None, {"kind": 3, "text": None, "logprobs": ["a"], "reward": "high"}]},
        {"step": 20, "question": ["a"], "answer_tokens": "abc", "baseline_logprobs": {}, "traces": [{}]},
    ],
)  # fmt: skip
def test_samples_with_other_fields_do_not_stop_a_report(tmp_path, line):
    run = made_up_run(tmp_path / "quick")
    write_lines(run / "samples.jsonl", [line])
    write_lines(run / "self_assessment.jsonl", [{"step": 1, "rows": [{"agreement": "a", "right": 2}, 3]}, {"rows": 1}])
    _, data, notes = written([tmp_path / "quick"], tmp_path)
    left_out = [note for note in notes if "1 line of samples.jsonl left out, without a step or traces" in note]
    assert len(data["runs"][0]["samples"]) + len(left_out) == 1


@pytest.mark.parametrize("kind", ["csv", "tensorboard"])
def test_without_a_history_the_curves_are_those_of_another_logger(tmp_path, kind):
    if kind == "csv":
        text = "epoch,step,train/loss,val/exact_match\n0,0,1.0,\n0,9,,0.5\n0,9,0.2,\nx,y,z\n"
        (tmp_path / "metrics.csv").write_text(text)
    else:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(tmp_path)
        writer.add_scalar("train/loss", 1.0, 0)
        writer.add_scalar("1_learns/val/exact_match", 0.5, 9)  # as `Dashboard` names it
        writer.close()
    _, data, notes = written([tmp_path], tmp_path)
    assert data["runs"][0]["curves"]["series"]["val/exact_match"] == [None, 0.5]
    assert data["runs"][0]["curves"]["axes"] == {"step": [1, 10]}
    assert any("metrics.jsonl" in note for note in notes)
    assert any("1 line of" in note for note in notes) == (kind == "csv")


def test_folders_without_logs_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "unlogged" / "run").mkdir(parents=True)
    (tmp_path / "unlogged" / "run" / "metrics.jsonl").write_text("")
    (tmp_path / "online" / "wandb" / "offline-run-1").mkdir(parents=True)
    reasons = {"missing": "not a folder", "empty": "no log", "unlogged": "no figures", "online": "Weights & Biases"}
    for folder, why in reasons.items():
        with pytest.raises(InputError, match=rf"{folder}.*{why}") as caught:
            write_report([tmp_path / folder], tmp_path / "report.html")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_runs_beyond_the_most_are_said_to_be_left_out(tmp_path):
    for number in range(14):
        log = made_up_run(tmp_path / f"run{number}", steps=20) / "metrics.jsonl"
        os.utime(log, (1e9 + number, 1e9 + number))
    _, data, notes = written([tmp_path], tmp_path)
    assert len(data["runs"]) == 12
    assert len({run["name"] for run in data["runs"]}) == 12
    assert re.fullmatch(r"2 of 14 runs are left out, the oldest: (run0|run1)/\S+, (run0|run1)/\S+", notes[0]), "by time"


def test_a_long_run_with_long_texts_stays_small_and_says_what_is_left_out(tmp_path):
    run = made_up_run(tmp_path / "quick", steps=4000)
    lines = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    lines = [line | {"step": step, "question": "wörter " * 1000} for step in range(10, 4000, 10) for line in lines[:4]]
    write_lines(run / "samples.jsonl", lines)
    html, data, notes = written([tmp_path / "quick"], tmp_path)
    [shown] = data["runs"]
    assert len(html.encode()) < LARGEST
    assert {10, 3990} <= {sample["step"] for sample in shown["samples"]}
    assert len(shown["curves"]["series"]["train/loss"]) <= 300
    assert re.search(r"of 1,596 samples are left out", notes[0])


def test_the_command_prints_the_path_last(tmp_path, capsys):
    made_up_run(tmp_path / "quick")
    command(["report", str(tmp_path / "quick"), f"--output={tmp_path / 'page.html'}"])
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {tmp_path / 'page.html'}"
    with pytest.raises(InputError, match=r"output=.*cannot be written"):
        command(["report", str(tmp_path / "quick"), f"--output={tmp_path / 'quick'}"])


def history(**curves) -> History:
    made = History()
    for name, values in curves.items():
        for number, value in enumerate(values):
            made.add(10 * (number + 1), {name.replace("__", "/"): value})
    return made


@pytest.mark.parametrize(
    ("curves", "level", "words"),
    [
        ({"val__exact_match": [0.0, 0.3, 0.97]}, "good", "It has learned this."),
        ({"val__exact_match": [0.0, 0.3, 0.6]}, "good", "It learns."),
        ({"val__exact_match": [0.0, 0.4]}, "watch", "It learns, but 60% of the answers are wrong so far."),
        ({"val__exact_match": [0.06, 0.08, 0.1, 0.11, 0.11, 0.11, 0.11]}, "bad", "barely learns: 89% of the answers"),
        ({"val__exact_match": [0.06, 0.08, 0.15, 0.15, 0.15, 0.15]}, "bad", "barely learns: 85% of the answers"),
        ({"val__exact_match": [0.0, 0.2, 0.4, 0.4, 0.4, 0.4]}, "watch", "learns a part: 60% of the answers are wrong"),
        ({"val__exact_match": [0.1, 0.9, 0.3]}, "bad", "It learned, and lost it again."),
        ({"val__exact_match": [0.3, 0.2, 0.1]}, "bad", "It gets worse."),
        ({"val__exact_match": [0.6, 0.61, 0.6]}, "watch", "It hardly changes: 40%"),
        ({"val__exact_match": [0.0] * 2, "train__gain": [0.0] * 2}, "bad", "It does not learn."),
        ({"val__exact_match": [0.4], "train__gain": [0.0] * 20 + [1.0] * 20}, "watch", "not measured over training"),
        ({"val__exact_match": [0.0, 0.0, 0.01]}, "bad", "does not learn"),
        ({"val__exact_match": [0.0, 0.0, 0.0], "val__confidence": [0.01, 0.02, 0.05]}, "watch", "slowly"),
        ({"val__exact_match": [0.97, 0.98]}, "good", "It knew this from the start."),
        ({"train__loss": [1.0] * 5}, "open", "Too early"),
        ({"val__exact_match": [0.0, 0.5], "rollout__marker_rate": [0.9, 0.3]}, "bad", "not healthy"),
        ({"val__exact_match": [0.0, 0.8, 0.5]}, "watch", "One figure"),
        ({"val__exact_match": [0.0, 0.8], "rollout__trace_tokens": [20, 0.1]}, "bad", "not healthy"),
        ({"val__exact_match": [0.0, 0.8], "rollout__truncated_share": [0.1, 0.3]}, "watch", "One figure"),
        ({"val__exact_match": [0.0, 0.8], "train__zero_variance_groups": [0.1, 0.7]}, "watch", "One figure"),
        ({"val__exact_match": [0.0, 0.8], "train__grad_norm": [1.0] * 30 + [100.0]}, "watch", "One figure"),
        ({"val__exact_match": [0.0, 0.8], "collapse__dependence": [0.9, 0.01]}, "bad", "not healthy"),
        ({"val__exact_match": [0.0, 0.8], "train__gain": [0.5] * 60 + [-0.5] * 20}, "bad", "not healthy"),
    ],
)
def test_the_verdict_says_what_the_curves_say(curves, level, words):
    headline, findings = verdict(history(**curves))
    assert headline.level == level
    assert words in headline.text
    assert all(finding.action for finding in findings if finding.level in ("bad", "watch"))
    assert headline.action or level == "good"


@pytest.mark.parametrize(
    ("curve", "facts", "words"),
    [
        ([0.0, 0.01], {"steps": 150, "ended": None}, "Too early to say whether it learns.*It has not ended."),
        ([0.0, 0.01] * 7, {"steps": 150, "ended": None}, "It does not learn.*It has not ended."),
        ([0.0, 0.97], {"steps": 150, "ended": {"step": 20}}, "It has learned this.*It has not ended."),
        ([0.0, 0.97], {"steps": 20, "ended": {"step": 20}}, "learned this.$"),
        ([0.0, 0.97], {}, "learned this.$"),
        ([0.0, 0.97], {"steps": "x", "ended": "y"}, "It has not ended."),
    ],
)
def test_the_verdict_says_that_a_run_has_not_ended(curve, facts, words):
    headline, findings = verdict(history(val__exact_match=curve), facts)
    assert re.search(words, headline.text)
    told = [
        finding.text for finding in findings if "step 20 of 150" in finding.text or "of 150: the run" in finding.text
    ]
    assert bool(told) == (facts.get("steps") == 150)


def test_runs_are_compared_only_if_they_answered_the_same_questions(tmp_path):
    made_up_run(tmp_path / "quick")
    sft = made_up_run(tmp_path / "quick", "sft", traces=False)
    results = {"nrt": {"exact_match": 0.99}, "sft": {"exact_match": 0.107}}
    (tmp_path / "quick" / "results.json").write_text(json.dumps(results))
    _, data, _ = written([tmp_path / "quick"], tmp_path)
    assert data["compared"] == "nrt answers best. Exact match on test questions: nrt 0.990, sft 0.107."
    facts = json.loads((sft / "run.json").read_text())
    facts["settings"]["data.test"] = "others.csv"
    (sft / "run.json").write_text(json.dumps(facts))
    _, data, _ = written([tmp_path / "quick"], tmp_path)
    assert "different questions" in data["compared"]
    _, data, _ = written([tmp_path / "quick" / "tensorboard" / "nrt"], tmp_path)
    assert data["compared"] == ""


def test_log_odds_are_those_of_the_article():
    now, before = Counter(so=6, wait=3, ok=1), Counter(so=1, wait=3, ok=16)
    both, (n, m) = now + before, (10, 20)
    found = log_odds(now, before, both)
    for word, pooled in both.items():
        a = PRIOR * pooled / 30
        y, z = now[word] + a, before[word] + a
        delta = log(y / (n + PRIOR - y)) - log(z / (m + PRIOR - z))
        assert found[word] == pytest.approx((delta, delta / sqrt(1 / y + 1 / z)))
    assert found["so"][1] > 0 > found["ok"][1]
