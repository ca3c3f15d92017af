"""A checkpoint of others chooses no code: neither by a class, nor by a function, nor by the model's own code."""

from __future__ import annotations

import os
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import BASE

from cli.small_runs import Command, small_args
from nrt_lightning import InputError, NRTModule
from nrt_lightning.cli.main import run
from nrt_lightning.cli.trained import read_trained

EVIL = """
from pathlib import Path
Path("ran").touch()
from nrt_lightning import LoRA, NRTModule, Policy

class Adapter(LoRA): pass
class Module(NRTModule): pass
class Base(Policy): pass
def function(*args, **settings): Path("ran").touch()
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The checkpoint of a run."""
    directory, before = tmp_path_factory.mktemp("run"), os.getcwd()
    os.chdir(directory)
    try:
        run(small_args("fit", directory, "--trainer.max_steps=1", "--trainer.val_check_interval=1"))
        (path,) = Path("out/checkpoints").glob("*.ckpt")
        return torch.load(path, weights_only=True)
    finally:
        os.chdir(before)


@pytest.fixture
def attack(written: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a checkpoint whose settings are changed, beside a module that notes that it ran."""
    Path("evil.py").write_text(EVIL)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    monkeypatch.delitem(sys.modules, "evil", raising=False)

    def write(**changed: Any) -> str:
        settings = dict(written["hyper_parameters"])
        policy = settings["policy"] | {"init_args": settings["policy"]["init_args"] | changed.pop("policy", {})}
        policy |= {"class_path": changed.pop("policy_class", policy["class_path"])}
        torch.save(written | {"hyper_parameters": settings | {"policy": policy} | changed}, "x.ckpt")
        return "x.ckpt"

    return write


OF_THE_POLICY: dict[str, tuple[dict[str, Any], str]] = {
    "a class of a module beside": ({"policy": {"adapter": {"class_path": "evil.Adapter"}}}, "evil.Adapter"),
    "a class as a text": ({"policy": {"adapter": "evil.Adapter"}}, "evil.Adapter"),
    "another policy": ({"policy_class": "evil.Base"}, "evil.Base"),
    "a program": (
        {"policy": {"adapter": {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "ran"]}}}},
        "subprocess.Popen",
    ),
    "a function": ({"policy": {"scoring": {"class_path": "os.system", "init_args": {}}}}, "os.system"),
    "a module behind one of this package": (
        {"policy": {"scoring": "nrt_lightning.errors.difflib.SequenceMatcher"}},
        "difflib.SequenceMatcher",
    ),
    "a name that begins like an allowed one": (
        {"policy": {"adapter": {"class_path": "nrt_lightning_evil.Adapter"}}},
        "nrt_lightning_evil.Adapter",
    ),
    "deep inside": ({"policy": {"adapter": {"init_args": {"x": [{"class_path": "evil.Adapter"}]}}}}, "evil.Adapter"),
    "in dict_kwargs": ({"policy": {"adapter": {"dict_kwargs": {"class_path": "evil.Adapter"}}}}, "evil.Adapter"),
    "a class of another kind of value": ({"policy": {"adapter": {"class_path": ["evil.Adapter"]}}}, "evil.Adapter"),
}
OF_THE_MODEL: dict[str, tuple[dict[str, Any], str]] = {
    "the module": ({"_class_path": "evil.Module"}, "evil.Module"),
    "an engine": ({"engine": {"class_path": "evil.Engine"}}, "evil.Engine"),
    "an optimizer that is a function": ({"optimizer": "evil.function"}, "evil.function"),
    "an optimizer of the system": ({"optimizer": {"class_path": "os.system"}}, "os.system"),
    "metrics in a list": ({"metrics": [{"class_path": "evil.Metric"}]}, "evil.Metric"),
    "Lightning's instantiator": ({"_instantiator": "evil.function"}, "evil.function"),
}


def nothing_ran() -> bool:
    return not Path("ran").exists()


@pytest.mark.parametrize("name", OF_THE_POLICY)
def test_export_refuses_settings_that_would_run_code(attack: Any, name: str) -> None:
    changed, culprit = OF_THE_POLICY[name]
    with pytest.raises(InputError, match=rf"x\.ckpt.*{culprit}.*--allow={culprit}" if "kind" not in name else culprit):
        run(["export", f"--checkpoint={attack(**changed)}", "--out=m"])
    assert nothing_ran()
    assert not Path("m").exists()


@pytest.mark.parametrize("name", OF_THE_MODEL | OF_THE_POLICY)
def test_load_from_checkpoint_refuses_them_too(attack: Any, name: str) -> None:
    changed, culprit = (OF_THE_MODEL | OF_THE_POLICY)[name]
    with pytest.raises(InputError, match=rf"x\.ckpt.*{culprit}"):
        NRTModule.load_from_checkpoint(attack(**changed))
    assert nothing_ran()


@pytest.mark.parametrize("model", [[], ["--model=null"]])
def test_other_commands_read_no_settings_of_a_checkpoint(attack: Any, model: list[str]) -> None:
    path = attack(_class_path="evil.Module")
    with pytest.raises(SystemExit):
        run(["validate", f"--ckpt_path={path}", "--data=QADataModule", "--data.val=x.jsonl", *model])
    assert nothing_ran()


def test_classes_that_the_user_lists_are_built(attack: Any) -> None:
    path = attack(policy_class="evil.Base")
    for allow in ("evil.Base", "other, evil", ["evil"]):
        assert type(read_trained(path, allow=allow).policy).__name__ == "Base"
    with pytest.raises(InputError, match=r"evil\.Base"):
        read_trained(path, allow="evil.Other,evi")
    run(["export", f"--checkpoint={path}", "--out=m", "--allow=evil.Base"])
    assert Path("m/config.json").is_file()
    with pytest.raises(InputError, match="--allow='no path'"):
        read_trained(path, allow="no path")


def test_a_checkpoint_of_a_run_is_read(attack: Any) -> None:
    assert isinstance(NRTModule.load_from_checkpoint(attack()), NRTModule)
    own: Any = import_module("evil").Module  # whose class the caller has chosen
    assert isinstance(own.load_from_checkpoint(attack(_class_path="evil.Module")), own)


CODE = """
from pathlib import Path
Path("{place}/ran").touch()
from transformers import LlamaConfig
class Own(LlamaConfig):
    model_type = "own"
"""


@pytest.fixture
def with_code(attack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A checkpoint whose base brings code and that asks to run it."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    shutil.copytree(BASE, "base")
    Path("base/own.py").write_text(CODE.replace("{place}", str(tmp_path)))
    config = Path("base/config.json")
    config.write_text(config.read_text().replace("{", '{"auto_map": {"AutoConfig": "own.Own"},', 1).replace(
        '"model_type": "llama"', '"model_type": "own"'))  # fmt: skip
    return attack(policy={"trust_remote_code": True, "model": "./base"})


def test_trust_remote_code_counts_only_from_the_command_line(with_code: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InputError, match=r"(?s)'base'.*trust_remote_code"):
        read_trained(with_code)
    assert "trust_remote_code=True, which is not used" in caplog.text
    assert "x.ckpt" in caplog.text
    with pytest.raises(InputError, match=r"x\.ckpt.*trust_remote_code"):
        NRTModule.load_from_checkpoint(with_code)
    assert nothing_ran()
    read_trained(with_code, trust_remote_code=True)
    assert not nothing_ran()


class Payload:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


@pytest.mark.parametrize("command", ["export", "validate", "chat", "load"])
def test_a_pickle_with_code_is_not_run(attack: Any, nrt: Command, written: dict[str, Any], command: str) -> None:
    torch.save(written | {"callbacks": {"x": Payload()}}, "x.ckpt")
    commands: dict[str, Any] = {
        "export": lambda: run(["export", "--checkpoint=x.ckpt", "--out=m"]),
        "chat": lambda: run(["chat", "--checkpoint=x.ckpt", "--question=1?"]),
        "validate": lambda: nrt("validate", "--ckpt_path=x.ckpt"),
        "load": lambda: NRTModule.load_from_checkpoint("x.ckpt"),
    }
    with pytest.raises(Exception, match=r"x\.ckpt|weights_only|WeightsUnpickler"):
        commands[command]()
    assert nothing_ran()


def test_objects_are_built_where_the_command_line_says_so(nrt: Command, written: dict[str, Any]) -> None:
    torch.save(written | {"extra": Payload()}, "x.ckpt")
    with pytest.raises(InputError, match=r"x\.ckpt.*weights_only=False"):
        nrt("validate", "--ckpt_path=x.ckpt")
    assert nothing_ran()
    nrt("validate", "--ckpt_path=x.ckpt", "--weights_only=false")
    assert not nothing_ran()
