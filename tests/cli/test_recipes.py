"""Every model with every way of training, as composed on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from transformers import LlamaConfig

from cli.recipes import at_home
from cli.small_runs import CONFIGS, SMALL
from nrt_lightning import FourBit, LoRA
from nrt_lightning.cli.commands.plan import main
from nrt_lightning.cli.lightning_cli import NRTCLI, make_cli
from nrt_lightning.cli.main import run
from nrt_lightning.tools.planning.report import GIB, report

MODELS = [path for path in sorted((CONFIGS / "models").glob("*.yaml")) if "embedded:" not in path.read_text()]
WAYS = {"full": ["full"], "lora": ["lora"], "qlora": ["lora", "qlora"]}
TULU = CONFIGS / "data" / "tulu3_sft_mixture.yaml"


def llama_8b() -> LlamaConfig:
    shape = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
    return LlamaConfig(vocab_size=128256, num_key_value_heads=8, **shape)


def options(model: Path, way: str, directory: Path) -> list[str]:
    configs = [TULU, model, *(CONFIGS / "training" / f"{name}.yaml" for name in WAYS[way])]
    args = [word for config in configs for word in ("--config", str(config))]
    return args + at_home(args, directory)


def test_there_is_a_recipe_for_every_model_that_is_promised() -> None:
    assert [path.stem for path in MODELS] == [
        "llama_3_1_8b", "llama_3_2_1b", "llama_3_2_3b", "mistral_7b_v0_3",
        "qwen3_0_6b", "qwen3_1_7b", "qwen3_4b", "qwen3_8b",
    ]  # fmt: skip


ONE_OF_A_FAMILY = ("llama_3_1_8b", "mistral_7b_v0_3", "qwen3_8b")  # in every way, the others in the longest


@pytest.mark.parametrize(
    ("model", "way"),
    [
        pytest.param(
            model, way, id=f"{model.stem}-{way}",
            marks=[] if model.stem in ONE_OF_A_FAMILY or way == "qlora" else pytest.mark.slow,
        )
        for model in MODELS
        for way in WAYS
    ],
)  # fmt: skip
def test_every_model_is_instantiated_in_every_way(model: Path, way: str, tmp_path: Path) -> None:
    if way == "qlora":
        pytest.importorskip("bitsandbytes")
    cli = make_cli(NRTCLI, options(model, way, tmp_path), run=False)
    policy = cli.model.policy
    assert isinstance(policy.adapter, LoRA) == (way != "full")
    assert isinstance(policy.quantization, FourBit) == (way == "qlora")
    assert policy.dtype == (torch.float32 if way == "full" else torch.bfloat16)
    assert cli.datamodule.window == cli.trainer.accumulate_grad_batches, "on-policy"


@pytest.mark.parametrize("model", ["llama_3_1_8b", "mistral_7b_v0_3", "qwen3_8b"])
def test_a_recipe_trains_on_conversations(model: str, tmp_path: Path) -> None:
    turns = [("user", "a4b*2?"), ("assistant", "b3"), ("user", "b1c+1?"), ("assistant", "c2")]
    row = {"messages": [{"role": role, "content": content} for role, content in turns]}
    Path("rows.jsonl").write_text(f"{json.dumps(row)}\n" * 8)
    small = "\n".join(line for line in SMALL.splitlines() if "class_path: nrt_lightning.RegisterPrograms" not in line)
    Path("small.yaml").write_text(small)
    cli = run(["fit", *options(CONFIGS / "models" / f"{model}.yaml", "lora", tmp_path), "--config", "small.yaml",
               "--data.train=rows.jsonl", "--data.val_rows=2", "--data.window=1", "--trainer.accumulate_grad_batches=1",
               "--trainer.precision=32-true", "--trainer.max_steps=1"])  # fmt: skip
    assert cli is not None
    assert cli.trainer.global_step == 1
    assert torch.isfinite(cli.trainer.callback_metrics["train/loss"])


SHORT = ["--plan.prompt_tokens=64", "--plan.trace_tokens=64", "--plan.answer_tokens=32"]


@pytest.mark.parametrize(
    ("lengths", "too_small"),
    [pytest.param([], 8, id="as configured", marks=pytest.mark.slow), pytest.param(SHORT, 4, id="short")],
)
def test_the_single_gpu_experiment_is_planned_to_fit_its_gpu(
    lengths: list[str], too_small: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("bitsandbytes")
    llama_8b().save_pretrained(tmp_path / "shape")
    experiment = str(CONFIGS / "experiments" / "single_gpu_qlora.yaml")
    plan = main(["--config", experiment, f"--model.policy.model={tmp_path}/shape", "--plan.device_gib=24", *lengths])
    text = capsys.readouterr().out
    assert "base 8,030,261,248" in text
    assert "WARNING" not in text
    assert "WARNING" in report(plan, device_bytes=too_small * GIB)


@pytest.mark.parametrize(("machine", "processes"), [("eight_gpus", 8), ("two_nodes", 16)])
def test_weights_are_divided_among_all_processes_and_a_step_is_64_prompts(
    machine: str, processes: int, tmp_path: Path
) -> None:
    trainer = ["--config", str(CONFIGS / "trainer" / f"{machine}.yaml")]
    args = [*options(CONFIGS / "models" / "llama_3_1_8b.yaml", "full", tmp_path), *trainer]
    args += at_home(args, tmp_path)
    cli = make_cli(NRTCLI, args, run=False)
    assert cli.trainer.world_size == processes
    assert type(cli.trainer.strategy) is ModelParallelStrategy
    assert cli.trainer.strategy._data_parallel_size == processes
    assert cli.trainer.strategy._tensor_parallel_size == 1
    assert processes * cli.datamodule.batch_size * cli.trainer.accumulate_grad_batches == 64
    assert cli.datamodule.window == cli.trainer.accumulate_grad_batches, "on-policy"


@pytest.mark.slow
def test_the_papers_8b_run_has_the_papers_sizes_and_is_planned_to_fit_eight_gpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = str(CONFIGS / "experiments" / "llama31_8b_tulu3_nrt_ws.yaml")
    cli = make_cli(NRTCLI, ["--config", experiment, *at_home(["--config", experiment], tmp_path)], run=False)
    prompts = cli.trainer.world_size * cli.datamodule.batch_size
    windows = cli.trainer.max_steps * cli.trainer.accumulate_grad_batches // cli.datamodule.window
    assert (prompts * cli.trainer.accumulate_grad_batches, prompts * cli.datamodule.window, windows) == (64, 256, 810)
    llama_8b().save_pretrained(tmp_path / "shape")
    speed = ["--plan.device_gib=80", "--plan.device_tflops=400", "--plan.device_gbs=2300"]
    plan = main(["--config", experiment, f"--model.policy.model={tmp_path}/shape", *speed])
    text = capsys.readouterr().out
    assert "WARNING" not in text
    assert "seconds of an optimizer step" in text
    assert plan.memory["rollout"]["weights gathered"] == 2 * 8_030_261_248
    assert plan.memory["learning"]["optimizer"] == 8 * 8_030_261_248 // 8
    assert plan.tokens["sampled"] == 64 * 8 * 2048
