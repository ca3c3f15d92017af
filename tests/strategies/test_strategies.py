"""Runs of several processes give the same results as one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fake_vllm import FakeVLLM, listening

from nrt_lightning import Policy
from nrt_lightning.cli.commands.export import export
from strategies.runs import in_processes, run

RESUMED = {"fsdp2": ("file", "directory"), "fsdp1": ("file", "directory")}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("strategies")


@pytest.fixture(scope="module")
def server():
    """Address of a server for rollouts, to which every run sends its weights first."""
    with listening(FakeVLLM("embedded:registers-base")) as url:
        yield url


@pytest.fixture(scope="module")
def several(place, server):
    """Runs of two processes, one after another in the same processes."""
    two, fsdp1, fsdp2 = {"processes": 2}, {"processes": 2, "kind": "fsdp1"}, {"processes": 2, "kind": "fsdp2"}
    alone = {"weights_alone": True}  # for tests of steps and weights
    specs = [
        {"name": "ddp", "kind": "ddp", **two},
        {"name": "ddp_tokens", "kind": "ddp", "loss": "token_mean", "window": 2, **two},
        {"name": "fsdp2_tokens", "kind": "fsdp2", "loss": "token_mean", "window": 2, **two},
        {"name": "fsdp2_lora", "kind": "fsdp2", "lora": True, "reference": "adapter", "save": str(place / "lora.ckpt"),
         "export": str(place / "lora"), **two},
        {"name": "fsdp2_ema", "kind": "fsdp2", "reference": "ema", "policy": {"activation_checkpointing": True}, **two},
        {"name": "fsdp1_ema", "kind": "fsdp1", "reference": "ema", **two},
        {"name": "fsdp2_lora_resumed", "kind": "fsdp2", "lora": True, "reference": "adapter",
         "resume": str(place / "lora.ckpt"), **alone, **two},
        {"name": "fsdp2_watched", "watched": True, "initial": True, **fsdp2},
        {"name": "fsdp1_watched", "watched": True, "initial": True, **fsdp1},
        {"name": "fsdp2_served", "server": server, "free": 1000, **alone, **fsdp2},
        {"name": "fsdp1_served", "server": server, **alone, **fsdp1},
        {"name": "fsdp1_lora_served", "server": server, "lora": True, **alone, **fsdp1},
        {"name": "fsdp2_bf16", "precision": "bf16-mixed", **alone, **fsdp2},
        {"name": "fsdp1_bf16", "precision": "bf16-mixed", **alone, **fsdp1},
        {"name": "auto_sizes", "kind": "auto_sizes", "refused": True, **two},
        {"name": "quantized", "quantized": True, "refused": True, **fsdp2},
        {"name": "memory", "free": 1000, "refused": True, **fsdp2},
        {"name": "half", "precision": "16-mixed", "refused": True, **fsdp1},
        {"name": "checkpointing", "kind": "fsdp1_checkpointing", "refused": True, **two},
        {"name": "two_dtypes", "lora": True, "adapter_dtype": "bfloat16", "refused": True, **fsdp1},
    ]  # fmt: skip
    for kind in RESUMED:
        for form in RESUMED[kind]:
            settings, path = {"kind": kind, "directory": form == "directory", **two}, str(place / f"{kind}_{form}.ckpt")
            more = {"export": str(place / kind), "predict": True} if form == "file" else alone
            specs += [
                {"name": f"{kind}_{form}", "save": path, **more, **settings},
                {"name": f"{kind}_{form}_resumed", "resume": path, **alone, **settings},
            ]
    other = {"resume": str(place / "fsdp2_file.ckpt"), "refused": True, **fsdp2}
    specs += [{"name": "other_rows", "rows": 6, **other}, {"name": "other_model", "lora": True, **other}]
    return in_processes(place, *specs)


@pytest.fixture(scope="module")
def one(place):
    """The same run in one process, by settings."""
    made = {}

    def get(**spec):
        spec = spec or {"predict": True}
        key = repr(sorted(spec.items()))
        if key not in made:
            made[key] = run("auto", 1, place / f"one{len(made)}", **spec)
        return made[key]

    return get


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("ddp", {}),
        ("ddp_tokens", {"loss": "token_mean", "window": 2}),
        ("fsdp2_file", {}),
        ("fsdp2_tokens", {"loss": "token_mean", "window": 2}),
        ("fsdp2_lora", {"lora": True, "reference": "adapter"}),
        ("fsdp2_ema", {"reference": "ema"}),
        ("fsdp1_file", {}),
        ("fsdp1_ema", {"reference": "ema"}),
        ("fsdp2_watched", {"watched": True, "initial": True}),
        ("fsdp1_watched", {"watched": True, "initial": True}),
    ],
)
def test_two_processes_train_as_one_with_twice_the_batch(several, one, name, spec):
    two, whole = several[name], one(**spec)
    for ours, expected in zip(two["steps"], whole["steps"], strict=True):
        assert ours == pytest.approx(expected, rel=2e-4, abs=2e-6), "losses, traces and every metric"
    assert two["weights"] == pytest.approx(whole["weights"], rel=1e-5)
    assert two["val"] == pytest.approx(whole["val"], rel=1e-3)
    assert two["greedy"] == whole["greedy"], "processes that write to different lengths write what one writes"


@pytest.mark.parametrize(
    ("name", "spec"), [("fsdp2_served", {}), ("fsdp1_served", {}), ("fsdp1_lora_served", {"lora": True})]
)
def test_a_server_samples_for_sharded_weights_as_for_whole_ones(several, one, server, name, spec):
    """Under FSDP2 they never need to fit on one device."""
    two, whole = several[name], one(server=server, weights_alone=True, **spec)
    for ours, expected in zip(two["steps"], whole["steps"], strict=True):
        assert ours == pytest.approx(expected, rel=2e-4, abs=2e-5)
    assert two["weights"] == pytest.approx(whole["weights"], rel=1e-5)


@pytest.mark.parametrize("name", ["fsdp2_bf16", "fsdp1_bf16"])
def test_in_bf16_mixed_the_weights_are_updated_in_float32(several, one, name):
    """Rounding changes traces, so first steps and weight changes are only approximately equal."""
    for metric in ("rollout/trace_entropy", "train/answer_nll"):
        assert several[name]["steps"][0][metric] == pytest.approx(one()["steps"][0][metric], rel=0.1)
    assert several[name]["weights"] == pytest.approx(one()["weights"], rel=1e-3)
    assert several[name]["weights"] != several["fsdp2_file"]["weights"]


@pytest.mark.parametrize("name", ["fsdp2_file", "fsdp1_file"])
def test_processes_predict_though_they_have_unequal_numbers_of_batches(several, one, name):
    expected = one()["predicted"]
    assert len(expected) == 3
    assert sorted(several[name]["predicted"], key=lambda row: row["id"]) == sorted(expected, key=lambda row: row["id"])


@pytest.mark.parametrize("name", ["fsdp2_file", "fsdp1_file"])
def test_each_process_holds_its_share_before_and_after_sampling(several, one, name):
    assert several[name]["held"] <= one()["held"] / 2 + 64, "weights of a block are rounded up to even shares"


@pytest.mark.parametrize("name", [f"{kind}_{form}" for kind in RESUMED for form in RESUMED[kind]] + ["fsdp2_lora"])
def test_resumed_equals_uninterrupted(several, name):
    whole, rest = several[name], several[f"{name}_resumed"]
    assert rest["steps"] == whole["steps"][1:]
    assert rest["weights"] == whole["weights"]


@pytest.mark.parametrize("kind", ["fsdp2", "fsdp1"])
def test_a_checkpoint_of_two_processes_goes_on_in_one(several, one, place, kind):
    rest = run("auto", 1, place / f"{kind}_alone", resume=str(place / f"{kind}_file.ckpt"), weights_alone=True)
    assert rest["steps"][-1] == pytest.approx(one()["steps"][-1], rel=2e-4, abs=2e-6)
    assert rest["weights"] == pytest.approx(one()["weights"], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "spec"), [("fsdp2", {}), ("fsdp1", {}), ("lora", {"lora": True, "reference": "adapter"})]
)
def test_sharded_weights_are_exported_whole(several, one, place, name, spec):
    exported = Policy(str(place / name)).load()
    if not spec:
        norms = {n: float(p.detach().double().norm()) for n, p in exported.named_parameters()}
        assert norms == pytest.approx(one()["weights"], rel=1e-5)
    assert exported.markup.marker_ids[0] == 62 or not exported.marker_is_new


@pytest.mark.parametrize(
    "name",
    ["auto_sizes", "quantized", "memory", "other_rows", "other_model", "half", "checkpointing", "two_dtypes"],
)
def test_what_cannot_work_is_refused_before_training(several, name):
    said = {
        "auto_sizes": ("tensor_parallel_size 2", "data_parallel_size to 2"),
        "quantized": ("policy.quantization", "trainer.strategy"),
        "memory": ("GiB", "bf16-mixed"),
        "other_rows": ("batch_size x processes=4", "6"),
        "other_model": ("adapter",),
        "half": ("trainer.precision", "16-mixed", "bf16-mixed"),
        "checkpointing": ("activation_checkpointing_policy", "policy.activation_checkpointing"),
        "two_dtypes": ("adapter.dtype", "bfloat16", "float32"),
    }
    for words in said[name]:
        assert words in several[name]["error"]


@pytest.mark.slow
def test_four_processes_train_as_one(place, one):
    """Also from a checkpoint of two processes, and from a sharded directory."""
    path = str(place / "four.ckpt")
    specs = [
        {"name": kind, "kind": kind, "processes": 4, **({"save": path, "directory": True} if kind == "fsdp2" else {})}
        for kind in ("ddp", "fsdp2", "fsdp1")
    ]
    found = in_processes(place, *specs)
    for kind in ("ddp", "fsdp2", "fsdp1"):
        for ours, expected in zip(found[kind]["steps"], one()["steps"], strict=True):
            assert ours == pytest.approx(expected, rel=2e-4, abs=2e-6), kind
        assert found[kind]["weights"] == pytest.approx(one()["weights"], rel=1e-5)
    rest = in_processes(place, {"name": "two", "kind": "fsdp2", "processes": 2, "resume": path, "directory": True})[
        "two"
    ]
    assert rest["steps"][-1] == pytest.approx(one()["steps"][-1], rel=2e-4, abs=2e-6)
    assert rest["weights"] == pytest.approx(one()["weights"], rel=1e-5)


def test_a_directory_of_shares_is_exported_by_the_command(several, place):
    """The command line stores settings; a run from Python has none, which is an error."""
    from nrt_lightning.strategies import read_sharded

    saved = read_sharded(place / "fsdp2_directory.ckpt")
    whole = torch.load(place / "fsdp2_file.ckpt", weights_only=True)["state_dict"]
    assert saved["state_dict"].keys() == whole.keys()
    assert all(torch.equal(saved["state_dict"][name], weight) for name, weight in whole.items())
    with pytest.raises(ValueError, match="fsdp2_directory"):
        export(str(place / "fsdp2_directory.ckpt"), str(place / "out"))


@pytest.mark.slow
def test_a_sharded_run_of_the_command_line_is_exported_by_it(tmp_path):
    configs = Path(__file__).parents[2] / "configs"
    directory = str(tmp_path / "run")
    command = [sys.executable, "-m", "nrt_lightning", "fit", "--config", str(configs / "quickstart.yaml")]
    command += ["--config", str(configs / "trainer" / "fsdp2.yaml"), "--trainer.max_steps=2", "--trainer.logger=false"]
    command += ["--trainer.strategy.init_args.save_distributed_checkpoint=true", "--trainer.callbacks=ModelCheckpoint"]
    command += ["--trainer.callbacks.every_n_train_steps=2"]
    command += ["--trainer.accelerator=cpu", "--data.batch_size=2", f"--trainer.default_root_dir={directory}"]
    out = subprocess.run(command, capture_output=True, text=True, timeout=1200, cwd=tmp_path)
    assert out.returncode == 0, out.stderr[-3000:]
    (checkpoint,) = Path(directory).rglob("*.ckpt")
    assert checkpoint.is_dir()
    export(str(checkpoint), str(tmp_path / "out"))
    assert not Policy(str(tmp_path / "out")).load().marker_is_new
