"""`nrt-lightning evaluate` on files of questions: models of all kinds, kills, and what cannot be used."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from taught import taught_policy

from cli.small_runs import QUICKSTART, Command
from nrt_lightning import InputError, PlainTemplate, Policy, RegisterPrograms, export_policy
from nrt_lightning.cli.main import run
from nrt_lightning.cli.user_errors import input_error
from nrt_lightning.evaluation import Questionnaire
from nrt_lightning.export import RunRecord

ROWS = 6
SHORT = ["embedded:registers-base", "--max_trace_tokens=4", "--max_answer_tokens=4"]


def jinja(policy: Policy) -> str | None:
    return PlainTemplate("{question}").with_markup(policy.markup).jinja(policy.tokenizer)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A policy that has solved the task."""
    policy = taught_policy()
    limits = {"max_trace_tokens": 24, "max_answer_tokens": 8}
    record = RunRecord(chat_template=jinja(policy), limits=limits)
    return str(export_policy(policy, tmp_path_factory.mktemp("taught") / "m", record=record))


@pytest.fixture
def questions(tmp_path: Path) -> list[dict[str, str | None]]:
    """Rows in `q.jsonl`."""
    rows: list[dict[str, str | None]] = [
        {"question": row.question, "answer": row.answer} for row in RegisterPrograms("test", ROWS).rows()
    ]
    write(rows)
    return rows


def write(rows: list[Any], name: str = "q.jsonl") -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def evaluate(*options: str) -> dict[str, Any]:
    run(["evaluate", "--batch_size=2", *options])
    out = next((o.partition("=")[2] for o in options if o.startswith("--out=")), "evaluation.json")
    figures: dict[str, Any] = json.loads(Path(out).read_text())
    return figures


def answers_in(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text().splitlines()[1:]]


def test_an_export_is_measured(exported: str, questions: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluate(exported, "--questions=q.jsonl", "--metrics=[ExactMatch, TokenF1]", "--samples=2")
    rows = answers_in("evaluation.rows.jsonl")
    assert [(row["question"], row["reference"]) for row in rows] == [(q["question"], q["answer"]) for q in questions]
    right = [
        sample["answer"] == row["reference"] and sample["marker_emitted"] for row in rows for sample in row["samples"]
    ]
    assert found["metrics"]["exact_match"]["mean"] == pytest.approx(sum(right) / len(right))
    assert sum(right) > len(right) / 2
    assert found["confidence"] > 0.5 > found["confidence_without_trace"]
    assert found["evaluation"]["max_trace_tokens"] == 24, "of the export"
    printed = capsys.readouterr().out
    assert "exact_match" in printed
    assert "majority@2" in printed
    assert "evaluation.rows.jsonl" in printed


def test_a_killed_evaluation_ends_with_the_same_files(
    exported: str, questions: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (exported, "--questions=q.jsonl", "--samples=2")
    evaluate(*options, "--out=whole.json")
    answer, calls = Questionnaire.answer, []

    def counted(self: Questionnaire, prompts: Any) -> Any:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(len(prompts))
        return answer(self, prompts)

    monkeypatch.setattr(Questionnaire, "answer", counted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(*options, "--out=cut.json")
    monkeypatch.setattr(Questionnaire, "answer", answer)
    assert not Path("cut.json").exists()
    with Path("cut.rows.jsonl").open("rb+") as file:  # a kill in the middle of a batch, and of a line
        file.truncate(Path("cut.rows.jsonl").stat().st_size - 100)
    capsys.readouterr()
    evaluate(*options, "--out=cut.json")
    assert "2 of 6 questions were answered before" in capsys.readouterr().err
    for ending in (".json", ".rows.jsonl"):
        assert Path(f"cut{ending}").read_bytes() == Path(f"whole{ending}").read_bytes()
    monkeypatch.setattr(Questionnaire, "answer", lambda *args: pytest.fail("answered again"))
    evaluate(*options, "--out=cut.json")


def test_files_of_another_evaluation_are_left_as_they_are(exported: str, questions: list[Any]) -> None:
    options = (exported, "--questions=q.jsonl", "--rows=2")
    evaluate(*options)
    before = Path("evaluation.rows.jsonl").read_bytes()
    for changed, words in (
        (["--metrics=TokenF1"], "metrics.*TokenF1"),
        (["--seed=1"], "seed is 0 there and 1 here"),
        (["--rows=3"], "questions"),
    ):
        with pytest.raises(InputError, match=rf"evaluation\.json.*{words}.*--out"):
            evaluate(*options, *changed)
    assert Path("evaluation.rows.jsonl").read_bytes() == before
    assert evaluate(*options, "--seed=1", "--overwrite=true")["evaluation"]["seed"] == 1


@pytest.mark.parametrize(
    ("name", "contents", "words"),
    [
        ("results.json", "{}", "no file of `nrt-lightning evaluate`"),
        ("results.rows.jsonl", '{"a": 1}\n', "no file of `nrt-lightning evaluate`"),
        ("results.rows.jsonl", "text\n", "no file of `nrt-lightning evaluate`"),
    ],
)
def test_other_files_are_not_overwritten(
    exported: str, questions: list[Any], name: str, contents: str, words: str
) -> None:
    Path(name).write_text(contents)
    with pytest.raises(InputError, match=words):
        evaluate(exported, "--questions=q.jsonl", "--out=results.json")
    assert Path(name).read_text() == contents


def test_a_damaged_line_is_named(exported: str, questions: list[Any]) -> None:
    evaluate(exported, "--questions=q.jsonl", "--rows=2")
    with Path("evaluation.rows.jsonl").open("a") as file:
        file.write('{"id": 3}\n')
    with pytest.raises(InputError, match=r"evaluation\.rows\.jsonl:4"):
        evaluate(exported, "--questions=q.jsonl", "--rows=2")


def test_a_run_answers_as_its_export_does(nrt: Command, questions: list[Any]) -> None:
    nrt("fit", "--trainer.callbacks=BestAndLast", "--model.optimizer.lr=0.01")
    run_of = ["--config", QUICKSTART, "--config=small.yaml", "--trainer.callbacks=BestAndLast"]
    run(["export", *run_of, "--out=m"])
    found = [
        evaluate(*options, "--questions=q.jsonl", f"--out={number}.json", "--rows=2")
        for number, options in enumerate(
            (["m"], run_of, [*run_of, "--checkpoint=auto"], ["--checkpoint=out/checkpoints/best.ckpt"])
        )
    ]
    rows = [answers_in(f"{number}.rows.jsonl") for number in range(4)]
    checks = [[row.pop("check") for row in answers] for answers in rows]  # follow from the command, too
    assert rows[0] == rows[1] == rows[2] == rows[3]
    assert checks[0] != checks[1]
    assert len({figures["evaluation"]["weights"] for figures in found}) == 1
    own = evaluate(*run_of, "--out=own.json", "--rows=2")
    tested = [row.question for row in RegisterPrograms("test", 4).rows()[:2]]
    assert [row["question"] for row in answers_in("own.rows.jsonl")] == tested, "the test rows of the run"
    assert own["questions"] == 2


def test_files_of_all_kinds_are_read(exported: str, questions: list[Any]) -> None:
    Path("q.csv").write_text("id,frage,antwort\n" + "".join(
        f'"{n}","{row["question"]}","{row["answer"]}"\n' for n, row in enumerate(questions)
    ))  # fmt: skip
    columns = "{class_path: QuestionAnswer, init_args: {question: frage, answer: antwort}}"
    evaluate(exported, "--questions=q.csv", f"--format={columns}", "--out=csv.json")
    evaluate(exported, "--questions=q.jsonl", "--out=jsonl.json")
    evaluate(exported, "--questions=RegisterPrograms", "--questions.split=test", f"--questions.size={ROWS}",
             "--out=class.json")  # fmt: skip
    texts = [[(row["question"], row["samples"]) for row in answers_in(f"{name}.rows.jsonl")]
             for name in ("csv", "jsonl", "class")]  # fmt: skip
    assert texts[0] == texts[1] == texts[2]


def test_a_base_is_measured_with_a_template(questions: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluate(
        "embedded:registers-base", "--questions=q.jsonl", "--rows=2", "--template=PlainTemplate",
        "--template.template={question}", "--max_trace_tokens=4", "--max_answer_tokens=4",
    )  # fmt: skip
    assert "'{question}'" in found["evaluation"]["template"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--questions=q.jsonl"], "no model is named"),
        (["m", "--checkpoint=last", "--questions=q.jsonl"], "both"),
        (["embedded:registers-base"], "no --questions"),
        (["embedded:registers-base", "--questions=missing.csv"], r"missing\.csv"),
        ([*SHORT, "--questions=q.jsonl", "--out=figures.txt"], r"figures\.txt"),
        (["embedded:registers-base", "--questions=q.jsonl", "--metrics=NumericMatch"], "a number.*'blue'"),
        (["embedded:registers-base", "--questions=q.jsonl", "--samples=2", "--temperature=0"], "samples=2"),
        (["embedded:registers-base", "--questions=q.jsonl", "--batch_size=0"], "batch_size=0"),
        (["embedded:registers-base", "--questions=q.jsonl", "--max_trace_tokens=9999"], r"q\.jsonl:1.*9999"),
        (["embedded:registers-base", "--questions=RegisterPrograms", "--format=QuestionAnswer"], "--format"),
    ],
)
def test_what_cannot_be_used_is_named(options: list[str], words: str) -> None:
    write([{"question": "a4b*2c+2d+3?dc:", "answer": "blue"}])
    with pytest.raises(InputError, match=words):
        run(["evaluate", *options])


def test_rows_without_answers_are_refused_where_a_metric_needs_them(exported: str) -> None:
    write([{"question": "a4b*2c+2d+3?dc:", "answer": "d3,c0"}, {"question": "b1c+1d*3?dc:", "answer": None}])
    with pytest.raises(InputError, match=r"q\.jsonl:2"):
        evaluate(exported, "--questions=q.jsonl")
    length = "{length: {class_path: FunctionSignal, init_args: {function: cli.test_evaluate.length_of}}}"
    found = evaluate(exported, "--questions=q.jsonl", f"--metrics={length}", "--confidence=false")
    assert found["metrics"]["length"]["mean"] > 0
    assert answers_in("evaluation.rows.jsonl")[1]["reference"] is None


def length_of(text: Any) -> int:
    return len(text.policy_answer)


def test_math_verify_names_its_install_line(exported: str, questions: list[Any], monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *more: None if name == "math_verify" else find(name, *more)
    )
    with pytest.raises(ValueError, match="MathVerify") as caught:
        evaluate(exported, "--questions=q.jsonl", "--metrics=MathVerify")
    assert "pip install 'nrt-lightning[math]'" in str(input_error(caught.value)), "as the command prints it"


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--metrics=ExactMtch", "ExactMatch"),
        ("--metrics=[ExactMatch, NumericMtch]", "NumericMatch"),
        ("--sampels=3", "samples"),
        ("--engine=VLLMServerEngin", "VLLMServerEngine"),
    ],
)
def test_the_nearest_name_is_given(option: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(["evaluate", "m", "--questions=q.csv", option])
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1
