"""Samples of traces: what is kept, and how it is shown."""

import html
import json
import math
import re

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from short_runs import fast, nrt_module, registers
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdown_to_safe_html
from tiny import ANSWERS, QUESTIONS, make_prompts

from nrt_lightning import InputError, Policy, SFTModule, TraceSamples, TransformersEngine
from nrt_lightning.callbacks.run_lines import RunLines
from nrt_lightning.callbacks.samples.markdown import block, fenced
from nrt_lightning.callbacks.samples.own_answers import greedy_answers
from nrt_lightning.callbacks.samples.table import columns_of, rows_of
from nrt_lightning.evaluation.probe import answers_after, repeat
from nrt_lightning.rollouts import GenerationRequest, assemble

VALIDATED = {"limit_val_batches": 1, "check_val_every_n_epoch": None, "val_check_interval": 2}


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_best_and_worst_of_training_and_the_greedy_trace_of_validation(quiet_trainer, tmp_path):
    logger = TensorBoardLogger(tmp_path, "", "tb")
    samples = TraceSamples(2, questions=2, val_rows=3)
    made = quiet_trainer(logger=logger, callbacks=[samples], max_steps=4, log_every_n_steps=1, **VALIDATED)
    made.fit(nrt_module(), registers())
    records = lines(tmp_path / "tb" / "samples.jsonl")
    assert [(r["step"], r["split"]) for r in records] == [
        (step, split) for step in (2, 4) for split in ["train"] * 2 + ["val"] * 3
    ]
    assert [r["prompts"] for r in records[:1]] == [6]
    train = [r for r in records if r["split"] == "train"]
    val = [r for r in records if r["split"] == "val"]
    assert [r["id"] for r in val[:3]] == [r["id"] for r in val[3:]], "the same rows at every look"
    for record in records:
        count = len(record["answer_tokens"])
        assert record["reference"] == "".join(record["answer_tokens"]).removesuffix("</s>")
        assert len(record["baseline_logprobs"]) == count
        for trace in record["traces"]:
            assert len(trace["logprobs"]) == count
            assert trace["confidence"] == pytest.approx(math.exp(sum(trace["logprobs"])), rel=1e-2)
            assert isinstance(trace["own_answer"], str)
            assert trace["right"] == (trace["own_answer"] == record["reference"])
    for record in train:
        best, worst = record["traces"]
        assert (best["kind"], worst["kind"]) == ("best", "worst")
        assert best["reward"] >= worst["reward"]
        assert best["reward"] - best["gain"] == pytest.approx(worst["reward"] - worst["gain"], rel=1e-3)
    rows = [row for row in lines(tmp_path / "tb" / "metrics.jsonl") if row["step"] == 2 and "train/reward" in row]
    assert train[0]["traces"][1]["reward"] <= rows[0]["train/reward"] + 3 * rows[0]["train/reward_group_std"]
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    text = events.Tensors("samples/val/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert text.count("**Greedy trace**") == 3
    assert val[-1]["question"] in text


def test_the_reward_of_a_greedy_trace_is_the_aggregators(quiet_trainer, tmp_path):
    samples = TraceSamples(100, val_rows=1)
    made = quiet_trainer(logger=CSVLogger(tmp_path, "", "x"), callbacks=[samples], max_steps=2, **VALIDATED)
    made.fit(nrt_module(), registers())
    (record,) = lines(tmp_path / "x" / "samples.jsonl")
    (trace,) = record["traces"]
    hardness = [-b for b in record["baseline_logprobs"]]  # neg_log_prob
    expected = sum(h * math.exp(c) for h, c in zip(hardness, trace["logprobs"])) / len(hardness)
    assert trace["reward"] == pytest.approx(expected, rel=1e-2)


def test_own_answers_are_those_of_the_evaluation(policy):
    prompts = make_prompts(policy, QUESTIONS, ANSWERS)
    request = GenerationRequest(
        prompts.prompt_ids, prompts.prompt_mask, 9, [*policy.markup.marker_stops(), *policy.eos_ids], 3, seed=1
    )
    engine = TransformersEngine()
    traces = engine.generate(policy, request)
    expected = answers_after(policy, engine, repeat(prompts, 3), traces)
    prompts.rollouts = assemble(prompts, traces, policy.markup)
    with policy.evaluating():
        found = greedy_answers(policy, engine, prompts, [1, 5, 8])
    for mine, row in enumerate([1, 5, 8]):
        ids = expected.token_ids[row][expected.token_mask[row]].tolist()
        assert found.token_ids[mine][found.token_mask[mine]].tolist() == ids
        assert bool(found.stopped[mine]) == bool(expected.stopped[row])


def test_a_resumed_run_has_the_samples_of_the_uninterrupted_one(quiet_trainer, tmp_path):
    def fit(steps, folder, name, ckpt_path=None):
        saves = ModelCheckpoint(folder, every_n_train_steps=2, save_top_k=-1, filename="{step}")
        made = quiet_trainer(
            logger=CSVLogger(folder, "", name), max_epochs=1, default_root_dir=folder, enable_checkpointing=True,
            callbacks=[saves, TraceSamples(1, val_rows=1)], max_steps=-1, limit_train_batches=steps, **VALIDATED,
        )  # fmt: skip
        made.fit(nrt_module(), registers(), ckpt_path=ckpt_path)

    fit(4, tmp_path / "whole", "a")
    whole = lines(tmp_path / "whole" / "a" / "samples.jsonl")
    fit(4, tmp_path / "whole", "b", ckpt_path=tmp_path / "whole" / "step=2.ckpt")
    resumed = lines(tmp_path / "whole" / "b" / "samples.jsonl")
    timeless = [[{k: v for k, v in r.items() if k != "seconds"} for r in records] for records in (whole, resumed)]
    assert timeless[0] == timeless[1]


OF_TRACES = ("text", "trace_tokens", "marker_emitted", "cut", "reward", "gain")


def test_sft_has_its_answers_and_no_traces(quiet_trainer, tmp_path):
    module, logger = SFTModule(Policy("embedded:registers-base"), optimizer=fast), TensorBoardLogger(tmp_path, "", "tb")
    made = quiet_trainer(logger=logger, callbacks=[TraceSamples(1, val_rows=2)], max_steps=2, **VALIDATED)
    made.fit(module, registers())
    records = lines(tmp_path / "tb" / "samples.jsonl")
    assert [(r["split"], r["baseline_logprobs"]) for r in records] == [("val", None)] * 2
    for (answer,) in (record["traces"] for record in records):
        assert [answer[name] for name in OF_TRACES] == [None] * len(OF_TRACES)
        assert (answer["kind"], answer["right"], 0 <= answer["confidence"] <= 1) == ("answer", False, True)
        assert isinstance(answer["own_answer"], str)
    text = block(records[0])
    assert re.search(r"\nThe policy's own answer, wrong, confidence in the reference answer \S+\n\n```text\n", text)
    assert not re.search("trace|marker|cut|gain|empty|reward", text.replace(records[0]["question"], ""), re.IGNORECASE)
    columns = columns_of(records)
    assert columns == ["step", "prompts", "split", "id", "question", "reference answer", "confidence", "own answer",
                       "right"]  # fmt: skip
    (first, _), answer = rows_of(records, columns), records[0]["traces"][0]
    assert first[-3:] == [answer["confidence"], answer["own_answer"], False]


def test_the_file_is_bounded(tmp_path):
    samples = TraceSamples(max_mib=0.05)
    samples.file = RunLines(tmp_path / "samples.jsonl")
    for step in range(1, 301):
        samples.file.add([{"step": step, "split": "train", "text": "x" * 1000}])
        samples.bound()
    steps = [line["step"] for line in samples.file.read()]
    assert samples.file.path.stat().st_size <= 0.05 * 2**20
    assert (steps[0], steps[-1]) == (1, 300)
    assert len(steps) > 20


def test_damaged_lines_are_left_out(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text('{"step": 1}\n' + "[" * 100_000 + '\n{"step": \n\n{"step": 2}\n')
    assert RunLines(path).read() == [{"step": 1}, {"step": 2}]


HARD = [
    "a ``` b\n```\n````x",
    "| a | b |\n|---|---|",
    "# no title\n\n- no list",
    "<b>&amp;</b> *x* _y_",
    "~~~\nx\n~~~",
    "",
]


@pytest.mark.parametrize("text", HARD)
def test_any_text_survives_in_tensorboard(text):
    shown = markdown_to_safe_html(f"before\n\n{fenced(text)}\n\nafter")
    (code,) = re.findall(r"<code[^>]*>(.*?)</code>", shown, re.DOTALL)
    assert html.unescape(code).removesuffix("\n") == (text or "(empty)")
    assert "<p>after</p>" in shown


def test_a_block_labels_what_it_shows():
    trace = {"kind": "best", "text": "t", "reward": 1.0, "gain": 0.5, "confidence": 0.25, "logprobs": None}
    trace |= {"own_answer": None, "right": None, "own_answer_note": "not written: x"}
    trace |= {"trace_tokens": 3, "marker_emitted": False, "cut": True}
    text = block({"id": "a|b", "question": "q", "reference": "r", "baseline_confidence": 0.125, "traces": [trace]})
    for part in ("Reference answer (confidence without a trace 0.125)", "gain +0.5", "marker not emitted", "cut",
                 "confidence in the reference answer 0.25", "not written: x"):  # fmt: skip
        assert part in text


def test_settings_out_of_range_are_refused():
    with pytest.raises(InputError, match=r"TraceSamples\.every_n_steps.*0"):
        TraceSamples(0)
