"""`nrt-lightning preflight` on the quickstart's config: it tells a base that can learn from one that cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.small_runs import CONFIGS, QUICKSTART
from nrt_lightning import InputError, RegisterPrograms
from nrt_lightning.cli.main import run
from nrt_lightning.tools.preflight.examples import quoted, shown
from nrt_lightning.tools.preflight.progress import Progress, span


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
    setup = embedded["setup"]
    assert (embedded["rows"], setup["group_size"], setup["max_trace_tokens"]) == (64, 8, 32)


def test_random_weights_cannot() -> None:
    figures = preflight("--rows=64", "--model.policy.weights=random")
    assert figures["verdict"]["can_start"] == "no"
    assert "another question" in figures["verdict"]["reason"]
    assert any(knob.startswith("model.policy.model:") for knob in figures["verdict"]["knobs"])
    assert figures["aggregations"]["log_prob"]["groups_with_gain"] > 0.8, "a gain alone says nothing"


def test_the_base_reads_answers_off_its_own_traces_only(embedded: dict) -> None:
    confidence = {name: embedded[name]["confidence"] for name in embedded if name.startswith("after")}
    assert confidence["after_best_trace"] > 0.5
    assert confidence["after_best_trace"] > 2 * confidence["after_best_borrowed_trace"]
    assert embedded["specific_gain_z"] > 5


def test_every_aggregation_is_judged(embedded: dict) -> None:
    assert len(embedded["aggregations"]) == 6
    assert embedded["setup"]["aggregator"] == "weighted_sum_neg_log_prob"
    for figures in embedded["aggregations"].values():
        assert figures["groups_with_gain"] > 0.5
        assert figures["right_first"] > embedded["right_first_by_chance"] + 0.3
        assert 0 <= figures["zero_variance"] <= 0.1


def test_ends_of_traces(embedded: dict) -> None:
    assert embedded["ended_by_marker"] + embedded["ended_by_eos"] + embedded["cut"] == pytest.approx(1)
    assert embedded["ended_by_eos"] == 0
    assert embedded["ended_by_marker"] > 0.5


def test_right_answers_end_as_they_should(embedded: dict) -> None:
    end = embedded["end"]
    assert end["text"] == "</s>"
    assert end["answers"] > 20
    assert end["share"] > 0.95
    assert end["confidence"] > 0.4, "the other half has the new marker, which begins as a copy of the end token"


def test_the_report_says_it_in_words_and_lines_that_fit(capsys: pytest.CaptureFixture[str]) -> None:
    preflight("--rows=16", "--model.sampling.max_trace_tokens=8", "--model.sampling.suppress_eos=false",
              "--trainer.enable_progress_bar=false")  # fmt: skip
    out = capsys.readouterr().out
    report = out[out.index("embedded:registers-base: 16 questions") :]
    assert "Can NRT start from here?" in report
    assert "weighted_sum_neg_log_prob *" in report
    assert "model.sampling.max_trace_tokens:" in report
    assert "'<|response_start|>'" in report
    assert "prompts by PlainTemplate(" in report
    assert max(map(len, report.splitlines())) <= 100
    assert "Prompt 1" not in out, "nothing is shown on the way without a progress bar"


def own_rows(count: int, *options: str) -> list[str]:
    """Options of a run on rows of a CSV file, as `init` writes them."""
    rows = RegisterPrograms(split="train", size=count).rows()
    lines = [f"{row.question},{chr(34)}{row.answer}{chr(34)}" for row in rows]
    Path("rows.csv").write_text("\n".join(["question,answer", *lines]) + "\n")
    run(["init", "--data=rows.csv", "--model=embedded:registers-base"])
    return ["--config", "run.yaml", "--data.template=PlainTemplate", "--model.sampling.max_trace_tokens=8", *options]


def origins(figures: dict) -> list[str]:
    return [example["origin"] for example in figures["prompts"]]


def test_a_hundred_rows_suffice_and_test_rows_are_not_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    run(["preflight", *own_rows(100), "--json=f.json", "--model.sampling.group_size=2"])
    figures = json.loads(Path("f.json").read_text())
    assert figures["rows"] == 90
    assert "10 validation and 80 training rows; 128 were asked for" in capsys.readouterr().out
    assert figures["verdict"]["can_start"] in ("yes", "no", "unclear")


@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_size_of_a_batch(batch_size: int, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [f"--data.batch_size={batch_size}", f"--data.eval_batch_size={batch_size}"]
    figures = preflight("--rows=4", *sizes)
    assert figures["rows"] == 4
    assert figures["after_best_borrowed_trace"]["confidence"] > 0
    out = capsys.readouterr().out
    assert out.index("Prompt 2") < out.index("first ") < out.index("4 of 4 questions") < out.index("Can NRT")
    assert len(figures["groups"]) == 2
    assert origins(figures) == [group["origin"] for group in figures["groups"]]


def test_a_row_alone_borrows_the_traces_of_another() -> None:
    """The figures that compare with another question's traces are those of larger batches, if the traces are."""
    whole = preflight("--rows=2", "--data.batch_size=2", "--model.sampling.temperature=0")
    single = preflight("--rows=2", "--data.batch_size=1", "--data.eval_batch_size=1", "--model.sampling.temperature=0")
    for name in ("after_trace", "after_borrowed_trace", "after_best_borrowed_trace", "without_trace"):
        assert single[name]["confidence"] == pytest.approx(whole[name]["confidence"], rel=1e-4), name


def test_traces_do_not_depend_on_the_batches_of_validation() -> None:
    found = [preflight("--rows=16", f"--data.eval_batch_size={size}") for size in (5, 16)]
    assert found[0]["useful"] == found[1]["useful"]
    assert found[0]["useful"]["value"] > 0


def test_prompts_and_the_best_and_worst_traces_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    figures = preflight("--rows=8", "--data.batch_size=4")
    out = capsys.readouterr().out
    rows = RegisterPrograms(split="validation", size=2).rows()
    for number, (row, prompt, group) in enumerate(zip(rows, figures["prompts"], figures["groups"], strict=True), 1):
        assert row.question in prompt["prompt"]
        assert f"Prompt {number}, {row.origin}" in out
        assert f"  | {prompt['prompt']}" in out
        assert group["answer"] == row.answer
        assert group["best"]["reward"] >= group["worst"]["reward"]
        assert f"best of 8: reward {group['best']['reward']:.3g}" in out
        assert group["best"]["ended"] in ("ended by the marker", "cut at the limit")
    assert "first 4 questions: " in out


def test_signals_are_reported_where_they_are_configured(capsys: pytest.CaptureFixture[str], embedded: dict) -> None:
    method = str(CONFIGS / "methods" / "rlpr_original.yaml")
    figures = preflight("--rows=16", "--config", method)
    assert list(figures["signals"]) == ["reward", "gain", "format", "repetition"]
    gain, reward = figures["signals"]["gain"], figures["signals"]["reward"]
    assert gain["right_first"] > 0.5  # right traces with a forced marker have no gain
    assert reward["mean"] > 0
    assert reward["failed"] == 0
    out = capsys.readouterr().out
    assert "reward *" in out
    assert out.count(" *  ") == 1, "one reward is the configured one"
    assert embedded["signals"] == {}


def test_how_long_it_takes_is_said_before_and_on_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter(float(10 * count) for count in range(1000))  # ten seconds between two looks at it
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nrt_lightning.tools.preflight.progress.time.monotonic", lambda: next(clock))
        progress = Progress(128, 8, 4, shown=True, bar=False)
        for token in range(1, 6):
            progress.tokens(token, 100, 32)
        progress.looked(8)
    first, *others = capsys.readouterr().out.splitlines()
    seconds = 10 * 100 * 16  # of a token, tokens, batches
    assert first.startswith(f"10000 ms a token: sampling for all 128 questions takes at most about {span(seconds)}, ")
    assert first.endswith("scoring and answers come on top")
    assert "0 of 128 questions, traces at 4 of 100 tokens, 32 not ended" in others
    assert others[-1].startswith("8 of 128 questions, 0:0")
    assert others[-1].endswith(" left")


def test_a_terminal_shows_a_bar_instead_of_lines(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(16, 8, 4, shown=True, bar=True)
    progress.say("a line")
    progress.tokens(1, 100, 32)
    progress.looked(8)
    progress.close()
    found = capsys.readouterr()
    assert found.out == "a line\n"
    assert "8/16" in found.err
    assert "1 of 100 tokens" in found.err


def test_long_texts_are_cut_and_counted_and_move_no_cursor() -> None:
    text = "\x1b[2J" + "x" * 4000
    assert "\x1b" not in quoted(text)
    assert quoted(text).endswith(f"... ({len(text) - 3000} more characters)")
    assert shown("y" * 100) == f"'{'y' * 69}...' (100 characters)"


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
