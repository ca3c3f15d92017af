"""lm-evaluation-harness on an export finds the exact match of `evaluate`, answer by answer."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from taught import taught_policy

from nrt_lightning import PlainTemplate, RegisterPrograms, export_policy
from nrt_lightning.cli.main import run
from nrt_lightning.export import RunRecord

ROWS, TRACE, ANSWER = 40, 32, 16
TASK = """
task: register_programs
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: ""
generation_kwargs: {{until: [], do_sample: false, max_gen_toks: {tokens}}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
filter_list:
  - name: stripped
    filter: [{{function: regex, regex_pattern: '\\s*([\\s\\S]*\\S)\\s*'}}, {{function: take_first}}]
"""


@pytest.mark.slow
@pytest.mark.parametrize("chat_template", [False, True])
def test_its_exact_match_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chat_template: bool) -> None:
    lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'lm_eval[hf]==0.4.13'")
    from lm_eval.tasks import TaskManager

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    policy = taught_policy()
    jinja = PlainTemplate("{question}").with_markup(policy.markup).jinja(policy.tokenizer)
    limits = {"max_trace_tokens": TRACE, "max_answer_tokens": ANSWER}
    export_policy(policy, "m", record=RunRecord(chat_template=jinja, limits=limits))
    rows = [{"question": row.question, "answer": row.answer} for row in RegisterPrograms("test", ROWS).rows()]
    for row in rows[::4]:
        row["answer"] = "d10,c10"  # the policy is too good
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("task.yaml").write_text(TASK.format(rows=tmp_path / "rows.jsonl", tokens=TRACE + ANSWER))

    run(["evaluate", "m", "--questions=rows.jsonl", "--confidence=false"])
    ours = json.loads(Path("evaluation.json").read_text())["metrics"]["exact_match"]["mean"]
    lines = [json.loads(line) for line in Path("evaluation.rows.jsonl").read_text().splitlines()[1:]]
    answers = [line["samples"][0]["answer"] for line in lines]

    marker = policy.markup.marker_ids[0]
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args=f"pretrained=m,think_end_token={marker},dtype=float32,add_bos_token=True",
        tasks=["register_programs"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        apply_chat_template=chat_template,
        batch_size=8,
        device="cpu",
        log_samples=True,
    )
    theirs = found["results"]["register_programs"]["exact_match,stripped"]
    samples = sorted(found["samples"]["register_programs"], key=lambda sample: sample["doc_id"])
    assert [sample["filtered_resps"][0] for sample in samples] == answers
    assert theirs == pytest.approx(ours)
    assert 0.5 < ours <= 0.75


def test_lm_eval_has_every_task_that_the_docs_name() -> None:
    """Also of other pages' commands; without lm-eval it is skipped."""
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'lm_eval[hf]==0.4.13'")
    from lm_eval.tasks import TaskManager

    text = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    commands = re.findall(r"lm_eval (?:[^\n]*\\\n)*[^\n]*--tasks ([\w*,]+)", text)
    names = {name for command in commands for name in command.split(",")}
    assert len(names) >= 8
    manager = TaskManager()
    assert {name for name in names if not manager.match_tasks([name])} == set()
