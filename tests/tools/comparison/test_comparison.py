"""Most tests replace runs by a few lines of Python; one test runs a real run."""

from __future__ import annotations

import csv
import math
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from nrt_lightning.cli.commands.compare import main
from nrt_lightning.cli.main import run as command_line
from nrt_lightning.errors import InputError
from nrt_lightning.tools.comparison import Comparison, Outcome, Run, markdown_table, run_all, summarize, write_csv
from nrt_lightning.tools.comparison.plot import draw
from nrt_lightning.tools.comparison.table import half_width

STAND_IN = """
import json, pathlib, sys, yaml
config = yaml.safe_load(open(sys.argv[-1]))
results = config["trainer"]["callbacks"][0]["init_args"]
place = pathlib.Path(config["trainer"]["default_root_dir"])
if "--fail=true" in sys.argv:
    sys.exit("out of luck")
with open(place.parent / "started.txt", "a") as file:
    file.write(results["name"] + "\\n")
score = 0.5 + 0.1 * config["seed_everything"]
figures = {"exact_match": score, "exact_match_forced": score, "seconds": 2.0, "collapse": 1.0}
figures |= {f"gain_decile_{d}": 11.0 - d for d in range(1, 11)}
pathlib.Path(results["path"]).write_text(json.dumps({results["name"]: figures}))
lines = ["epoch,step,rollout/trace_entropy,val/exact_match_forced"]
lines += [f"0,{step},{2.0 - step / 10},{step / 10 if step % 5 == 0 else ''}" for step in range(10)]
(place / "metrics.csv").write_text("\\n".join(lines))
"""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Run, "command", property(lambda run: [sys.executable, "-c", STAND_IN, *run.arguments, str(run.config)])
    )


def comparison(place: Path, **settings) -> Comparison:
    method = place / "method.yaml"
    if not method.exists():
        method.write_text("model: {init_args: {aggregator: GeometricMean}}\n")
    defaults = {"configs": [], "methods": {"gm": [str(method)], "am": ["--model.aggregator=ArithmeticMean"]}}
    return Comparison(**defaults | {"seeds": [0, 1], "directory": str(place / "runs")} | settings)


def started(place: Path) -> list[str]:
    return (place / "runs" / "started.txt").read_text().split()


def test_every_method_is_run_once_before_any_a_second_time(tmp_path):
    made = comparison(tmp_path, bases=["embedded:registers-base", "./mine"])
    names = [run.name for run in made.runs]
    assert names[:4] == ["gm-registers-base-0", "am-registers-base-0", "gm-mine-0", "am-mine-0"]
    assert len(set(names)) == len(names) == 8


def test_methods_that_are_left_out_are_not_run(tmp_path):
    assert [run.name for run in comparison(tmp_path, leave_out=["gm"]).runs] == ["am-0", "am-1"]


def test_options_come_last_and_the_method_after_the_configs(tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text("{}")
    made = comparison(tmp_path, configs=[str(base)], options=["--data.batch_size=2"], bases=["./mine"])
    method = str(tmp_path / "method.yaml")
    assert made.runs[0].arguments == (
        "fit", "--config", str(base), "--config", method, "--data.batch_size=2", "--model.policy.model=./mine"
    )  # fmt: skip
    assert made.runs[0].command[-2:] == ["--config", str(made.runs[0].config)]


def test_the_seed_is_of_sampling_and_of_the_rows_order(tmp_path):
    made = comparison(tmp_path)
    config = yaml.safe_load(made.config_of(made.runs[-1]))
    assert config["seed_everything"] == config["data"]["init_args"]["seed"] == 1


def test_callbacks_are_for_all_methods_but_those_named(tmp_path):
    made = comparison(tmp_path, callbacks=[{"class_path": "nrt_lightning.TraceSamples"}], without_callbacks=["am"])
    found = {run.method: yaml.safe_load(made.config_of(run))["trainer"]["callbacks"] for run in made.runs}
    assert [c["class_path"] for c in found["gm"]] == ["nrt_lightning.ResultsFile", "nrt_lightning.TraceSamples"]
    assert [c["class_path"] for c in found["am"]] == ["nrt_lightning.ResultsFile"]


@pytest.mark.parametrize("jobs", [1, 3])
def test_finished_runs_are_kept_and_killed_ones_begin_anew(tmp_path, stand_in, jobs):
    made = comparison(tmp_path)
    assert run_all(made, jobs) == []
    assert sorted(started(tmp_path)) == ["am-0", "am-1", "gm-0", "gm-1"]
    killed = made.runs[1]
    killed.results.unlink()
    (killed.directory / "half a checkpoint").write_text("")
    assert run_all(made, jobs) == []
    assert started(tmp_path)[4:] == [killed.name]
    assert not (killed.directory / "half a checkpoint").exists()
    run_all(comparison(tmp_path, seeds=[0, 1, 2]), jobs)
    assert sorted(started(tmp_path)[5:]) == ["am-2", "gm-2"], "more seeds add to what is there"


def test_a_run_of_other_configs_is_refused_before_anything_runs(tmp_path, stand_in):
    run_all(comparison(tmp_path, seeds=[0]))
    (tmp_path / "method.yaml").write_text("model: {init_args: {aggregator: LogProb}}\n")
    with pytest.raises(InputError, match=r"directory .*gm-0"):
        run_all(comparison(tmp_path))
    with pytest.raises(InputError, match=r"directory .*gm-0"):
        run_all(comparison(tmp_path, callbacks=[{"class_path": "nrt_lightning.TraceSamples"}]))
    assert len(started(tmp_path)) == 2


@pytest.mark.parametrize("option", ["--model={}", "--data.train={}", "--config={}"])
def test_files_that_options_name_are_part_of_the_fingerprint(tmp_path, stand_in, option):
    named = tmp_path / "named.yaml"
    named.write_text("class_path: nrt_lightning.NRTModule\n")
    settings = {"methods": {"gm": [option.format(named)]}, "seeds": [0]}
    run_all(comparison(tmp_path, **settings))
    assert run_all(comparison(tmp_path, **settings)) == []
    named.write_text("class_path: nrt_lightning.SFTModule\n")
    with pytest.raises(InputError, match=r"directory .*gm-0"):
        run_all(comparison(tmp_path, **settings))


def test_files_that_configs_name_and_those_of_a_base_are_part_of_the_fingerprint(tmp_path):
    rows, config, base = tmp_path / "rows.csv", tmp_path / "data.yaml", tmp_path / "base"
    rows.write_text("question,answer\n1+1,2\n")
    config.write_text("data: {init_args: {train: [rows.csv]}}\n")
    base.mkdir()
    (base / "config.json").write_text("{}")
    run = comparison(tmp_path, configs=[str(config)], bases=[str(base)]).runs[0]
    before = run.fingerprint
    assert run.fingerprint == before
    rows.write_text("question,answer\n1+1,3\n")
    other = run.fingerprint
    assert other != before
    (base / "config.json").write_text('{"a": 1}')
    assert run.fingerprint != other


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bases": ["x/y", "x_y"]}, "bases: 'x/y' and 'x_y'"),
        ({"bases": ["./mine", "mine"]}, "bases: './mine' and 'mine'"),
        ({"methods": {"a": [], "a-b": []}, "bases": ["b-c", "c"]}, r"methods\.a from 'b-c' and methods\.a-b from 'c'"),
        ({"methods": {"../a": []}}, r"methods\.\.\./a"),
    ],
)
def test_runs_that_would_share_a_directory_are_refused(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        comparison(tmp_path, **settings)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"gm-0": 3}', '{"gm-0": {"exact_match": "x"}}', "\x00"])
def test_damaged_results_are_named_before_anything_runs(tmp_path, stand_in, content):
    run_all(comparison(tmp_path, seeds=[0]))
    comparison(tmp_path).runs[0].results.write_text(content)
    with pytest.raises(InputError, match=r"gm-0/results\.json is damaged.*Remove"):
        run_all(comparison(tmp_path))
    assert len(started(tmp_path)) == 2


def test_damaged_curves_are_named_with_their_line(tmp_path, stand_in):
    run_all(comparison(tmp_path, seeds=[0]))
    curves = comparison(tmp_path).runs[0].directory / "metrics.csv"
    curves.write_text(curves.read_text() + "\n0,x,1.0,\n")
    with pytest.raises(InputError, match=r"metrics\.csv:12 is damaged"):
        run_all(comparison(tmp_path))


def test_files_of_no_run_are_never_deleted(tmp_path, stand_in):
    mine = tmp_path / "runs" / "gm-0" / "thesis.tex"
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work")
    with pytest.raises(InputError, match=r"gm-0 holds files of no run"):
        run_all(comparison(tmp_path))
    assert mine.exists()


def test_a_missing_matplotlib_is_found_before_the_runs(tmp_path, stand_in, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    config = tmp_path / "comparison.yaml"
    config.write_text("{configs: [], methods: {gm: []}, seeds: [0]}")
    with pytest.raises(InputError, match=r"matplotlib.*--plot=false"):
        main(["--config", str(config), f"--directory={tmp_path / 'runs'}"])
    assert not (tmp_path / "runs").exists()
    main(["--config", str(config), f"--directory={tmp_path / 'runs'}", "--plot=false"])


def test_a_failed_run_is_named_with_its_last_words_and_the_others_go_on(tmp_path, stand_in, capsys):
    made = comparison(tmp_path, methods={"bad": ["--fail=true"], "good": []}, seeds=[0])
    assert [run.name for run in run_all(made)] == ["bad-0"]
    assert started(tmp_path) == ["good-0"]
    assert "bad-0: failed (out of luck)" in capsys.readouterr().out
    assert [run.name for run in made.runs if run.finished] == ["good-0"]


def test_the_command_writes_table_figures_and_plot(tmp_path, stand_in, capsys):
    config = tmp_path / "comparison.yaml"
    config.write_text("{configs: [], methods: {gm: [], am: []}, seeds: [0, 1]}")
    main(["--config", str(config), f"--directory={tmp_path / 'runs'}", "--jobs=2"])
    out = capsys.readouterr().out
    width = 12.706 * math.sqrt(0.005) / math.sqrt(2)
    row = f"| 2 | 0.550 ± {width:.3f} | 0.550 ± {width:.3f} | 1.100 | 2 of 2 | 2 |"
    table = (tmp_path / "runs" / "table.md").read_text()
    assert table.splitlines()[2:] == [f"| `gm` {row}", f"| `am` {row}"]
    assert table in out
    with (tmp_path / "runs" / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["seed"], row["exact_match"]) for row in rows[:2]] == [
        ("gm", "0", "0.5"), ("am", "0", "0.5")
    ]  # fmt: skip
    assert (tmp_path / "runs" / "plot.png").stat().st_size > 10_000


def test_every_base_has_a_plot_of_its_own(tmp_path, stand_in):
    config = tmp_path / "comparison.yaml"
    config.write_text("{configs: [], methods: {gm: []}, seeds: [0], bases: [embedded:registers-base, ./mine]}")
    main(["--config", str(config), f"--directory={tmp_path / 'runs'}"])
    assert {path.name for path in (tmp_path / "runs").glob("*.png")} == {"plot-registers-base.png", "plot-mine.png"}


def test_the_command_fails_where_a_run_failed(tmp_path, stand_in):
    config = tmp_path / "comparison.yaml"
    config.write_text("{configs: [], methods: {bad: [--fail=true], good: []}, seeds: [0]}")
    with pytest.raises(SystemExit, match="1 runs failed: bad-0"):
        main(["--config", str(config), f"--directory={tmp_path / 'runs'}", "--plot=false"])
    assert "`good`" in (tmp_path / "runs" / "table.md").read_text()
    assert not (tmp_path / "runs" / "plot.png").exists()


def test_a_real_run_leaves_what_the_table_needs(tmp_path, monkeypatch):
    """In this process. A process of its own is what the slow test below has."""
    monkeypatch.setattr("sys.argv", ["nrt-lightning"])
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    quickstart = Path(__file__).parents[3] / "configs" / "quickstart.yaml"
    small = ["--data.train.size=32", "--data.val.size=8", "--data.test.size=8", "--trainer.val_check_interval=1"]
    made = Comparison(
        [str(quickstart)], {"ws": []}, seeds=[3], options=small, directory=str(tmp_path / "runs"),
        callbacks=[{"class_path": "nrt_lightning.DifficultyGain"}],
    )  # fmt: skip
    (run,) = made.runs
    run.directory.mkdir(parents=True)
    run.config.write_text(made.config_of(run))
    assert run.command[1:3] == ["-m", "nrt_lightning"]
    command_line(run.command[3:])
    outcome = Outcome.of(run)
    measured = {"exact_match", "trace_entropy", "seconds", "cpu_seconds", "gain_decile_1", "gain_decile_10"}
    assert measured <= outcome.figures.keys()
    assert [step for step, _ in outcome.curves["val/exact_match"]] == [0, 1]


@pytest.mark.slow
def test_an_alarm_is_in_the_results_whatever_the_logger_skips(tmp_path):
    quickstart = Path(__file__).parents[3] / "configs" / "quickstart.yaml"
    small = ["--data.train.size=32", "--data.val.size=8", "--data.test.size=8", "--trainer.max_steps=2",
             "--trainer.val_check_interval=1", "--trainer.log_every_n_steps=50"]  # fmt: skip
    always = {"signs": [{"class_path": "nrt_lightning.EmptyTraces", "init_args": {"min_tokens": 100}}]}
    watch = {"every_n_steps": 1, "patience": 1, **always}
    made = Comparison(
        [str(quickstart)], {"rlvr": ["nrt:methods/rlvr"]}, seeds=[0], options=small, directory=str(tmp_path / "runs"),
        callbacks=[{"class_path": "nrt_lightning.CollapseDetector", "init_args": watch}],
    )  # fmt: skip
    assert run_all(made) == []
    assert Outcome.of(made.runs[0]).figures["collapse"] == 1.0


def test_intervals_are_student_s():
    assert half_width([0.0, 1.0]) == pytest.approx(12.706 * math.sqrt(0.5) / math.sqrt(2))
    assert half_width([0.1, 0.2, 0.3, 0.4]) == pytest.approx(3.182 * 0.1290994 / 2, rel=1e-4)
    assert half_width([float(i % 2) for i in range(40)]) == pytest.approx(2.0227 * 0.50637 / math.sqrt(40), rel=1e-2)
    assert summarize([3.0, 3.0], digits=0) == "3"


def test_a_figure_that_only_some_methods_have_leaves_a_gap():
    outcomes = [Outcome("a", "", 0, {"exact_match": 1.0, "trace_tokens": 4.25}, {}), Outcome("b", "x", 0, {}, {})]
    lines = markdown_table(outcomes).splitlines()
    assert lines[0] == "| method | base | seeds | exact match | trace tokens |"
    assert lines[2:] == ["| `a` |  | 1 | 1.000 | 4.2 |", "| `b` | x | 1 | - | - |"]


def test_runs_without_a_figure_have_an_empty_cell(tmp_path):
    write_csv(tmp_path / "runs.csv", [Outcome("a", "", 0, {"x": 1.0}, {}), Outcome("b", "", 1, {"y": 2.0}, {})])
    assert (tmp_path / "runs.csv").read_text().split() == ["method,base,seed,x,y", "a,,0,1.0,", "b,,1,,2.0"]


def test_a_plot_of_runs_without_curves_can_be_drawn(tmp_path):
    draw(tmp_path / "plot.png", [Outcome("sft", "", 0, {"exact_match_forced": 0.1}, {})])
    assert (tmp_path / "plot.png").stat().st_size > 5_000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"methods": {}}, "methods"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, r"seeds=\[1, 1\]"),
        ({"bases": ["a", "a"]}, r"bases=\['a', 'a'\]"),
        ({"configs": ["nowhere.yaml"]}, "configs: 'nowhere.yaml'"),
        ({"methods": {"gm": ["nowhere.yaml"]}}, "methods.gm: 'nowhere.yaml'"),
        ({"methods": {"gm": ["GeometricMean"]}}, "methods.gm: 'GeometricMean'"),
        ({"options": ["data.seed=1"]}, r"options: 'data.seed=1'"),
        ({"without_callbacks": ["gn"]}, r"without_callbacks: 'gn'.*'am', 'gm'"),
        ({"leave_out": ["gn"]}, "leave_out: 'gn'"),
        ({"leave_out": ["am", "gm"]}, "leave_out"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        comparison(tmp_path, **settings)


DATA = "data: {class_path: nrt_lightning.QADataModule, init_args: {train: rows.jsonl%s}}\n"


def test_a_comparison_without_test_data_is_refused_before_anything_runs(tmp_path):
    without, given = tmp_path / "without.yaml", tmp_path / "given.yaml"
    without.write_text(DATA % "")
    given.write_text(DATA % ", test: held_out.jsonl")
    for settings in ({"configs": [str(without)]}, {"configs": [str(given)], "options": ["--data.test=null"]}):
        with pytest.raises(InputError, match=r"methods\.(gm|am).*data\.test"):
            comparison(tmp_path, **settings)
    for settings in (
        {"configs": [str(given)]},
        {"configs": [str(given), str(without)]},
        {"configs": [str(without)], "options": ["--data.test=held_out.jsonl"]},
    ):
        assert comparison(tmp_path, **settings).runs


def test_fewer_than_one_job_is_refused(tmp_path):
    config = tmp_path / "comparison.yaml"
    config.write_text("{configs: [], methods: {gm: []}}")
    with pytest.raises(InputError, match="jobs=0"):
        main(["--config", str(config), "--jobs=0"])


def many(methods: int = 23) -> list[Outcome]:
    """Outcomes of many methods, whose lines end at three places."""
    curve = [(9, 0.1), (19, 0.5)]
    gains = {f"gain_decile_{d}": 1.0 + d / 9 for d in range(1, 11)}
    ends = [(f"method_{at}", at % 3 / 3) for at in range(methods)]
    return [
        Outcome(name, "", 0, {"exact_match_forced": end} | gains, {"val/exact_match_forced": [*curve, (29, end)]})
        for name, end in ends
    ]


def drawn(path: Path, outcomes: list[Outcome], monkeypatch):
    """The figure of a plot."""
    from matplotlib.figure import Figure

    made = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **more: made.append(figure) or save(figure, *args, **more)
    )
    draw(path, outcomes, "registers-base")
    return made[0]


def test_names_of_many_methods_do_not_cover_each_other(tmp_path, monkeypatch):
    figure = drawn(tmp_path / "plot.png", many(), monkeypatch)
    assert "registers-base" in figure.get_suptitle()
    assert len(figure.axes) == 3
    renderer = figure.canvas.get_renderer()
    for panel in figure.axes:
        names = [text for text in [*panel.texts, *panel.get_yticklabels()] if text.get_text().startswith("method_")]
        assert len(names) == 23
        boxes = [text.get_window_extent(renderer) for text in names]
        middles = sorted((box.y0 + box.y1) / 2 for box in boxes)
        assert min(b - a for a, b in pairwise(middles)) > 9  # pixels; letters are 8 points high
        assert all(box.y0 >= 0 and box.y1 <= figure.bbox.height and box.x1 <= figure.bbox.width for box in boxes)
    lines = [line for line in figure.axes[1].lines if len(line.get_xdata()) == 3]
    assert len({(line.get_color(), str(line.get_linestyle()), line._unscaled_dash_pattern) for line in lines}) == 23


def test_a_panel_without_figures_is_left_out(tmp_path, monkeypatch):
    outcomes = [
        Outcome("sft", "", 0, {"exact_match_forced": 0.1}, {}),
        Outcome("nrt", "", 0, {"exact_match_forced": 0.9}, {}),
    ]
    assert len(drawn(tmp_path / "plot.png", outcomes, monkeypatch).axes) == 1
