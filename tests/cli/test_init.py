"""`nrt-lightning init`: one config for rows, model and machine, which all other commands take unchanged."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from subwords import byte_level, save_model
from tiny import BASE, save_tiny
from transformers import AutoTokenizer, BertConfig

from cli.small_runs import CONFIGS
from nrt_lightning import InputError, RegisterPrograms
from nrt_lightning.cli.commands.plan import main as plan
from nrt_lightning.cli.main import run
from nrt_lightning.cli.starter import Machine, ModelFacts, RowFacts, fill, settings_for
from nrt_lightning.configs import FOLDER

OWN_DATA = FOLDER / "own_data.yaml"
MODEL = "--model=embedded:registers-base"
GIB = 2**30


def programs(count: int) -> list[tuple[str, str]]:
    return [(row.question, str(row.answer)) for row in RegisterPrograms(split="train", size=count).rows()]


def write_csv(path: str, header: tuple[str, ...], rows: list[tuple[Any, ...]], delimiter: str = ",") -> str:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


def init(*options: str, output: str = "run.yaml") -> dict[str, Any]:
    run(["init", *options, *([] if output == "run.yaml" else [f"--output={output}"])])
    return yaml.safe_load(Path(output).read_text(encoding="utf-8"))


def data_of(config: dict[str, Any]) -> dict[str, Any]:
    return config["data"]["init_args"]


def printed(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    with pytest.raises(SystemExit) as caught:
        run([*args, "--print_config"])
    assert caught.value.code in (0, None)
    return capsys.readouterr().out


def test_what_is_written_by_default_is_a_config_of_the_package() -> None:
    init(output="configs/own_data.yaml")
    first, rest = Path("configs/own_data.yaml").read_text().split("\n", 1)
    assert first == "# nrt-lightning fit --config configs/own_data.yaml"
    assert f"# nrt-lightning fit --config nrt:own_data\n{rest}" == OWN_DATA.read_text()


def test_every_key_has_a_comment_also_where_it_was_filled_in() -> None:
    write_csv("rows.csv", ("question", "answer"), programs(40))
    init("--data=rows.csv", MODEL)
    for text in (OWN_DATA.read_text(), Path("run.yaml").read_text()):
        keys = [line.strip().removeprefix("- ") for line in text.splitlines() if line.strip() and line[0] != "#"]
        assert len(keys) > 60
        assert [k for k in keys if "#" not in k and not k.startswith(("class_path:", "init_args:"))] == []


def test_all_commands_take_it_unchanged_and_fit_keeps_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    write_csv("programs.tsv", ("Problem", "Solution", "note"), [(*row, "x") for row in programs(40)], "\t")
    init("--data=programs.tsv", MODEL)
    before = Path("run.yaml").read_text()
    short = ["--trainer.max_steps=2", "--trainer.val_check_interval=1"]
    cli = run(["fit", "--config=run.yaml", *short])
    assert cli is not None
    lengths = {split: len(rows.rows) for split, rows in cli.datamodule.encoded.items()}
    assert lengths == {"train": 32, "val": 4, "test": 4}
    assert {p.name for p in Path("runs/run/checkpoints").glob("[!.]*")} == {"best.ckpt", "last.ckpt"}
    assert Path("runs/run/results.json").is_file()
    run(["validate", "--config=run.yaml", "--ckpt_path=best"])
    plan(["--config=run.yaml"])
    capsys.readouterr()
    for command in ("test", "preflight"):
        assert yaml.safe_load(printed(capsys, command, "--config=run.yaml"))["model"]
    assert Path("run.yaml").read_text() == before


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_files_of_every_kind(kind: str) -> None:
    name, found = f"Fragen & Antworten.{kind}", [("Wie groß ist 3 + 4, \"ungefähr\"?\nZeile zwei", 7)] * 20  # fmt: skip
    if kind in ("csv", "tsv"):
        write_csv(name, ("Frage", "Antwort"), found, "," if kind == "csv" else "\t")
    records = [{"Frage": question, "Antwort": answer} for question, answer in found]
    if kind == "jsonl":
        Path(name).write_text("".join(json.dumps(record) + "\n" for record in records))
    if kind == "parquet":
        import datasets

        datasets.Dataset.from_list(records).to_parquet(name)
    data = data_of(init(f"--data={name}"))
    assert data["train"] == name
    columns = {"question": "Frage", "answer": "Antwort"}
    assert data["format"] == {"class_path": "nrt_lightning.QuestionAnswer", "init_args": columns}
    assert (data["val_rows"], data["test_rows"], data["batch_size"]) == (2, 2, 8)


def test_conversations_and_pairs_of_prompt_and_completion() -> None:
    turns = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]
    Path("chats.jsonl").write_text(20 * (json.dumps({"messages": turns}) + "\n"))
    assert data_of(init("--data=chats.jsonl"))["format"]["class_path"] == "nrt_lightning.Messages"
    Path("pairs.jsonl").write_text(20 * (json.dumps({"prompt": turns[:1], "completion": turns[1:]}) + "\n"))
    config = init("--data=pairs.jsonl", output="pairs.yaml")
    assert data_of(config)["format"]["class_path"] == "nrt_lightning.PromptCompletion"
    for name in ("run.yaml", "pairs.yaml"):
        options = ["--model.policy.model=embedded:registers-base", "--trainer.fast_dev_run=true"]
        cli = run(["fit", f"--config={name}", *options])
        assert cli is not None


def test_columns_are_found_by_name_or_named() -> None:
    rows: list[tuple[Any, ...]] = [(number, "text", f"{number} + 1?", number + 1) for number in range(20)]
    write_csv("rows.csv", ("id", "source", "query", "Label"), rows)
    found = data_of(init("--data=rows.csv"))["format"]["init_args"]
    assert found == {"question": "query", "answer": "Label"}
    found = data_of(init("--data=rows.csv", "--question=source", output="named.yaml"))["format"]["init_args"]
    assert found == {"question": "source", "answer": "Label"}
    write_csv("two.csv", ("id", "text", "answer"), [row[:3] for row in rows])
    assert data_of(init("--data=two.csv", output="two.yaml"))["format"]["init_args"]["question"] == "text"


def test_an_instruction_with_an_input_is_no_question_by_itself() -> None:
    rows = [{"Instruction": f"Repeat {n}.", "input": "" if n < 6 else "Twice.", "output": str(n)} for n in range(12)]
    Path("alpaca.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"'Instruction' and 'input'.*--question"):
        init(MODEL, "--data=alpaca.jsonl")
    written = init(MODEL, "--data=alpaca.jsonl", "--question=Instruction")
    assert data_of(written)["format"]["init_args"]["question"] == "Instruction"


def test_names_that_yaml_would_read_otherwise() -> None:
    question, answer = "no", "a: b # c"
    write_csv("x\n- y #.csv", (question, answer), [("1 + 1?", "2")] * 20)
    config = init("--data=x\n- y #.csv", f"--question={question}", f"--answer={answer}")
    assert data_of(config)["train"] == "x\n- y #.csv"
    assert data_of(config)["format"]["init_args"] == {"question": question, "answer": answer}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data=missing.csv"], r"missing\.csv"),
        (["--data=rows.csv", "--question=Fragen"], r"--question='Fragen'.*'Frage'"),
        (["--data=other.csv"], r"'x', 'y', 'z'.*--question=COLUMN and --answer=COLUMN"),
        (["--data=few.csv"], r"few\.csv.*3 rows"),
        (["--data=empty.jsonl"], r"empty\.jsonl: no rows"),
        (["--data=rows.csv", "--question=Antwort", "--answer=Antwort"], "both 'Antwort'"),
        (["--question=Frage"], "--question without --data"),
        (["--model=./missing"], r"--model='\./missing'"),
        (["--model=./bare"], r"--model='\./bare': [^\n]*$"),
        (["--model=./slow"], "slow.*eos_token"),
        (["--model=./damaged"], r"--model='\./damaged': [^\n]*tokenizer cannot be read[^\n]*$"),
        (["--model=./bare/../rows.csv"], "is a file"),
        (["--model="], "--model=''.*empty"),
        (["--model=./weightless"], r"--model='\./weightless': no weights"),
        (["--model=./encoder"], r"--model='\./encoder' \(bert\) is an encoder"),
        (["--model=./mixed"], r"--model='\./mixed' has 40 embeddings.*ids up to 6\d"),
        (["--output=run.txt"], r"--output='run\.txt'.*\.yaml"),
        (["--output=rows.csv"], r"--output='rows\.csv' exists"),
        (["--data=long.csv", MODEL], r"long\.csv.*20 of 20 rows, first long\.csv:2, .*256 tokens"),
        (["--data=outlier.csv", MODEL], r"up to 5\d\d\d tokens.*1 of 21 rows, first outlier\.csv:22,.*256 tokens"),
    ],
)
def test_what_cannot_work_is_refused_and_nothing_is_written(options: list[str], message: str) -> None:
    write_csv("rows.csv", ("Frage", "Antwort"), [("1 + 1?", 2)] * 20)
    write_csv("other.csv", ("x", "y", "z"), [("1 + 1?", 2, 3)] * 20)
    write_csv("few.csv", ("question", "answer"), [("1 + 1?", 2)] * 3)
    write_csv("long.csv", ("question", "answer"), [("a1b2c3" * 60, "a1")] * 20)
    write_csv("outlier.csv", ("question", "answer"), [("a1b2c3", "a1")] * 20 + [("a" * 5000, "a1")])
    Path("empty.jsonl").write_text("")
    Path("bare").mkdir()
    shutil.copytree(BASE, "damaged")
    Path("damaged/tokenizer.json").write_text("{}")
    for name in ("weightless", "encoder", "mixed"):
        shutil.copytree(BASE, name)
    Path("weightless/model.safetensors").unlink()
    BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=64).save_pretrained("encoder")
    smaller = json.loads(Path("mixed/config.json").read_text()) | {"vocab_size": 40}
    Path("mixed/config.json").write_text(json.dumps(smaller))
    shutil.copytree(BASE, "slow")
    tokenizer = AutoTokenizer.from_pretrained("slow")
    tokenizer.eos_token = None
    tokenizer.save_pretrained("slow")
    with pytest.raises(InputError, match=message):
        run(["init", *options])
    assert not Path("run.yaml").exists()


def test_the_commands_to_go_on_with(capsys: pytest.CaptureFixture[str]) -> None:
    init(output="my run.yaml")
    commands = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("  nrt-lightning ")]
    assert commands == ["preflight", "plan", "fit", "validate", "export", "chat"]


def test_nothing_is_written_over() -> None:
    Path("run.yaml").write_text("mine: 1\n")
    with pytest.raises(InputError, match=r"run\.yaml' exists"):
        run(["init"])
    assert Path("run.yaml").read_text() == "mine: 1\n"


# Settings that follow from model and machine


CPU = Machine(None, 24 * GIB, 2, bfloat16=False)
FAST_CPU = Machine(None, 24 * GIB, 2, bfloat16=True)
GPU = Machine("H100", 80 * GIB, 16, bfloat16=True, gpus=1)
SMALL_GPU = Machine("T4", 16 * GIB, 16, bfloat16=True, gpus=2)


def facts(weights: float) -> ModelFacts:
    found = ModelFacts.read("embedded:registers-base")
    found.weights = int(weights)
    return found


def filled(weights: float, machine: Machine) -> dict[str, Any]:
    return yaml.safe_load(fill(OWN_DATA.read_text(), settings_for("x.yaml", None, facts(weights), machine)))


@pytest.mark.parametrize(
    ("weights", "machine", "adapter", "dtype", "four_bit", "precision"),
    [
        (1e6, CPU, False, "float32", False, "32-true"),
        (1e6, GPU, False, "float32", False, "bf16-mixed"),
        (135e6, CPU, True, "float32", False, "32-true"),
        (135e6, FAST_CPU, True, "bfloat16", False, "32-true"),
        (8e9, GPU, True, "bfloat16", False, "32-true"),
        (8e9, SMALL_GPU, True, "bfloat16", True, "32-true"),
        (5e9, CPU, True, "bfloat16", False, "32-true"),
    ],
)
def test_what_is_trained_in_which_precision(
    weights: float, machine: Machine, adapter: bool, dtype: str, four_bit: bool, precision: str
) -> None:
    config = filled(weights, machine)
    policy = config["model"]["init_args"]["policy"]["init_args"]
    assert (policy["adapter"] is not None, policy["dtype"], policy["quantization"] is not None) == (
        adapter, dtype, four_bit
    )  # fmt: skip
    assert config["trainer"]["precision"] == precision
    assert config["trainer"]["accelerator"] == ("cpu" if machine.gpu is None else "gpu")
    assert policy["activation_checkpointing"] == (weights > 1e9)
    steps, trace = config["trainer"]["max_steps"], config["model"]["init_args"]["sampling"]["max_trace_tokens"]
    assert (steps, trace) == ((300, 512) if machine.gpu else (60, 96) if adapter else (200, 128))


def test_a_model_that_does_not_fit_the_machine_is_refused() -> None:
    with pytest.raises(InputError, match=r"20\.0 billion.*24 GiB"):
        filled(20e9, CPU)


def test_a_larger_model_computes_less_at_once() -> None:
    def at_once(machine: Machine) -> list[int]:
        sizes = []
        for layers in (4, 400, 4000):
            model = facts(135e6)
            model.config.num_hidden_layers = layers
            settings = settings_for("x.yaml", None, model, machine)
            sizes.append(settings["model.init_args.max_tokens_per_micro_batch"].value)
        return sizes

    few, many = at_once(Machine(None, 2 * GIB, 1, bfloat16=False)), at_once(GPU)
    assert few == sorted(few, reverse=True)
    assert few[0] > few[-1] >= 1000
    assert all(more >= less for more, less in zip(many, few, strict=True))


def test_a_chat_template_and_a_token_to_pad_with_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_tiny(tmp_path / "plain", "llama")
    save_tiny(tmp_path / "chat", "qwen2")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "chat")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "chat")
    write_csv("rows.csv", ("question", "answer"), programs(40))
    config = init("--data=rows.csv", "--model=./chat")
    policy = config["model"]["init_args"]["policy"]["init_args"]
    assert policy["pad_token"] == "<|pad|>" or policy["pad_token"] in tokenizer.get_vocab()
    assert "the tokenizer's chat template" in capsys.readouterr().out
    assert "# the tokenizer's chat template\n" in Path("run.yaml").read_text()
    assert run(["fit", "--config=run.yaml", "--trainer.fast_dev_run=true"]) is not None
    init("--data=rows.csv", "--model=./plain", output="plain.yaml")
    assert "no chat template" in capsys.readouterr().out


CHAT = "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}<s>assistant:"
THINKING = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}<think>"


def uncommented(text: str) -> str:
    """The config with the commented template in the place of null."""
    kept = [line for line in text.splitlines() if not line.startswith("    template: null")]
    start = next(number for number, line in enumerate(kept) if line.strip() == "# template:")
    lines = (line.replace("    # ", "    ", 1) if number >= start else line for number, line in enumerate(kept))
    return "\n".join(lines)


@pytest.mark.parametrize("template", [None, CHAT, THINKING], ids=["plain", "chat", "drops traces"])
def test_the_place_for_worked_examples_is_a_template_once_it_is_no_comment(
    template: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = template
    save_model(tmp_path / "m", tokenizer, context=1024)
    write_csv("rows.csv", ("question", "answer"), [(f"{n} + 1 =", n + 1) for n in range(40)])
    before = init("--data=rows.csv", "--model=./m")
    assert data_of(before)["template"] is None
    Path("shown.yaml").write_text(uncommented(Path("run.yaml").read_text()))
    printed: list[str] = []
    monkeypatch.setattr("nrt_lightning.data.datamodule.rank_zero_info", printed.append)
    assert run(["fit", "--config=shown.yaml", "--trainer.fast_dev_run=true"]) is not None
    [asked] = printed
    kind = "ChatTemplate" if template == CHAT else "PlainTemplate"
    assert f"Prompts are made by {kind}(" in asked
    assert "6 + 9 = 15, 15 - 8 = 7\n| Answer: 7" in asked


def test_template_and_marker_are_those_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `init` says is what is printed before training."""
    tokenizer = byte_level()
    tokenizer.chat_template, tokenizer.pad_token = CHAT, None
    save_model(tmp_path / "m", tokenizer, context=1024)
    write_csv("rows.csv", ("question", "answer"), [(f"{n} + 1 =", n + 1) for n in range(40)])
    policy = init("--data=rows.csv", "--model=./m")["model"]["init_args"]["policy"]["init_args"]
    assert (policy["marker"], policy["answer_end"]) == (None, None)
    told, text = " ".join(capsys.readouterr().out.split()), Path("run.yaml").read_text()
    assert "null takes '\\nAnswer:'" in text
    assert "null takes '</s>'" in text
    printed: list[str] = []
    monkeypatch.setattr("nrt_lightning.data.datamodule.rank_zero_info", printed.append)
    assert run(["fit", "--config=run.yaml", "--trainer.fast_dev_run=true"]) is not None
    asked = " ".join(" ".join(printed).split())
    markup = re.search(r"Between trace and answer: marker (.+?, answer ends with '.+?' \(.+?\))", asked)
    assert markup is not None
    assert f"marker {markup[1]}" in told
    assert 'Think step by step, then write "Answer:" and the answer alone.' in told
    assert 'Think step by step, then write "Answer:" and the answer alone.' in asked


def test_rows_that_just_fit_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    """The limits then leave no room for longer ones."""
    write_csv("rows.csv", ("question", "answer"), [("1 + 1?", "2")] * 20 + [("a1" * 85, "a1")])
    config = init("--data=rows.csv", MODEL)
    settings, data = config["model"]["init_args"], data_of(config)
    found = re.search(r"prompts up to (\d+) tokens", capsys.readouterr().out)
    assert found is not None
    assert data["max_prompt_tokens"] >= int(found[1])
    assert 16 <= 256 - data["max_prompt_tokens"] - data["max_answer_tokens"] <= settings["sampling"]["max_trace_tokens"]


def test_rows_that_repeat_a_question_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    write_csv("rows.csv", ("question", "answer"), [(f"{n % 15} + 1?", n) for n in range(20)])
    init("--data=rows.csv")
    assert "5 repeat the question of an earlier row" in " ".join(capsys.readouterr().out.split())


def test_limits_leave_room_for_all_rows_and_a_trace() -> None:
    write_csv("rows.csv", ("question", "answer"), programs(40))
    rows, model = RowFacts.read("rows.csv", None, None), facts(1e6)
    settings = settings_for("x.yaml", rows, model, CPU)
    prompt = settings["data.init_args.max_prompt_tokens"].value
    answer = settings["data.init_args.max_answer_tokens"].value
    trace = settings["model.init_args.sampling.max_trace_tokens"].value
    prompts, answers = rows.tokens(model)
    assert max(prompts) < prompt
    assert max(answers) < answer
    assert trace > 100
    assert prompt + trace + answer <= model.context


def test_the_config_of_the_package_trains() -> None:
    write_csv("train.csv", ("question", "answer"), programs(60))
    options = ["--model.policy.model=embedded:registers-base", "--trainer.accelerator=cpu", "--trainer.max_steps=1"]
    cli = run(["fit", "--config=nrt:own_data", *options, "--model.sampling.max_trace_tokens=6"])
    assert cli is not None
    assert cli.trainer.global_step == 1
    assert CONFIGS.joinpath("own_data.yaml").resolve() == OWN_DATA.resolve()
