"""Checkpoints that are damaged, of another run, or hold what no run has saved: refused, with the file and the part."""

import copy
import io
import math
import pickle
import struct
import zipfile

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from short_runs import nrt_module, registers

from nrt_lightning import InputError
from nrt_lightning.cli.checkpoints import checkpoints_in, whole
from nrt_lightning.strategies.checkpoint_io import damage

QUIET = {
    "accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The path of a checkpoint after two steps, and its contents."""
    directory = tmp_path_factory.mktemp("run")
    saves = ModelCheckpoint(directory, save_last=True)
    L.Trainer(**QUIET, default_root_dir=directory, max_steps=2, callbacks=[saves]).fit(
        nrt_module(), registers(val=None)
    )
    path = directory / "last.ckpt"
    return path, torch.load(path, weights_only=True)


def cut(share):
    return lambda data: data[: int(len(data) * share)]


def flip(share):
    def damaged(data):
        place = in_a_record(data, int(len(data) * share))
        return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]

    return damaged


def in_a_record(data, place):
    """The first place from there on that is not padding between the records of the archive, which nothing reads."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        for entry in sorted(file.infolist(), key=lambda entry: entry.header_offset):
            name, extra = struct.unpack("<HH", data[entry.header_offset + 26 : entry.header_offset + 30])
            start = entry.header_offset + 30 + name + extra
            if place < start + entry.file_size:
                return max(place, start)
    return place


def zeros(share):
    return lambda data: data[: int(len(data) * share)] + bytes(4096) + data[int(len(data) * share) + 4096 :]


def archive(data):
    """A ZIP file that torch has not written."""
    with zipfile.ZipFile(made := io.BytesIO(), "w") as file:
        file.writestr("readme.txt", "no checkpoint")
    return made.getvalue()


class Payload:
    def __reduce__(self):
        return print, ("this ran",)


OF_THE_FILE = {
    "a flipped bit at the beginning": flip(0.02),
    "a flipped bit in the first third": flip(0.3),
    "a flipped bit in the middle": flip(0.5),
    "a flipped bit in the last third": flip(0.7),
    "a flipped bit near the end": flip(0.9),
    "zeros in the first half": zeros(0.25),
    "zeros in the second half": zeros(0.75),
    "a tenth of the file": cut(0.1),
    "half of the file": cut(0.5),
    "all but the last hundredth": cut(0.99),
    "all but the last byte": lambda data: data[:-1],
    "all but the first byte": lambda data: data[1:],
    "nothing": lambda data: b"",
    "zeros alone": lambda data: bytes(len(data)),
    "a page of a proxy": lambda data: b"<html><body>502 Bad Gateway</body></html>",
    "a pointer of Git LFS": lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
    "an archive of something else": archive,
    "a pickle": lambda data: pickle.dumps({"state_dict": {}}),
    "a pickle with code": lambda data: pickle.dumps(Payload()),
    "two halves in the wrong order": lambda data: data[len(data) // 2 :] + data[: len(data) // 2],
}  # fmt: skip


@pytest.mark.parametrize("name", OF_THE_FILE)
def test_damaged_files_are_refused_by_name_and_left_out_by_auto(name, saved, tmp_path, caplog, capsys):
    path = tmp_path / "last.ckpt"
    path.write_bytes(OF_THE_FILE[name](saved[0].read_bytes()))
    with pytest.raises(InputError, match=r"The checkpoint .*last\.ckpt cannot be used: \w.*Give another"):
        whole(str(path))
    assert damage(path)
    found = checkpoints_in([tmp_path], None)
    assert not found or damage(found[0].path)
    assert "this ran" not in capsys.readouterr().out


FIRST = "policy.model.model.embed_tokens.weight"


def without(*names):
    def change(state):
        for name in names:
            del state[name]

    return change


def put(*keys, value):
    def change(state):
        for key in keys[:-1]:
            state = state[key]
        state[keys[-1]] = value

    return change


def number(*keys, value):
    """Change one number of a tensor."""

    def change(state):
        for key in keys:
            state = state[key]
        state.view(-1)[5] = value

    return change


def integers(state):
    state["state_dict"][FIRST] = state["state_dict"][FIRST].long()


ADAM = ("optimizer_states", 0, "state", 0)
GROUP = ("optimizer_states", 0, "param_groups", 0)
BATCHES = ("loops", "fit_loop", "epoch_loop.batch_progress")
OF_THE_CONTENTS = {
    "no weights": (without("state_dict"), "no state_dict"),
    "weights as a list": (put("state_dict", value=[1]), "state_dict is a list"),
    "no weight at all": (put("state_dict", value={}), FIRST),
    "a weight less": (lambda state: state["state_dict"].pop(FIRST), FIRST),
    "a weight more": (put("state_dict", "policy.more", value=torch.zeros(2)), "policy.more"),
    "a weight of another shape": (put("state_dict", FIRST, value=torch.zeros(2, 3)), r"embed_tokens.*\[2, 3\]"),
    "a weight that is text": (put("state_dict", FIRST, value="x"), "embed_tokens.weight is a str"),
    "a weight of integers": (integers, "embed_tokens.*int64"),
    "a NaN in a weight": (number("state_dict", FIRST, value=math.nan), "embed_tokens.weight is not finite"),
    "infinity in a weight": (number("state_dict", FIRST, value=math.inf), "embed_tokens.weight is not finite"),
    "a NaN in the optimizer": (number(*ADAM, "exp_avg", value=math.nan), "exp_avg of parameter 0.*not finite"),
    "infinity in the optimizer": (number(*ADAM, "exp_avg_sq", value=math.inf), "exp_avg_sq of parameter 0.*not finite"),
    "no state of the optimizer": (put("optimizer_states", 0, "state", value={}), "optimizer without state after 2"),
    "a state of another shape": (put(*ADAM, "exp_avg", value=torch.zeros(3)), r"exp_avg of \[3\] for a weight of"),
    "no groups of parameters": (put("optimizer_states", 0, "param_groups", value=[]), "parameter groups"),
    "fewer parameters": (put(*GROUP, "params", value=[0]), "parameter group"),
    "a rate of NaN": (put(*GROUP, "lr", value=math.nan), "learning rate nan"),
    "a rate that is text": (put(*GROUP, "lr", value="x"), "learning rate 'x'"),
    "an optimizer that is text": (put("optimizer_states", 0, value="x"), "optimizer 0 has no state"),
    "no optimizers": (without("optimizer_states"), "no optimizer_states"),
    "an optimizer less": (put("optimizer_states", value=[]), "0 optimizer_states.*has 1"),
    "an optimizer more": (lambda state: state["optimizer_states"].append(state["optimizer_states"][0]), "2 optimizer"),
    "no schedules": (without("lr_schedulers"), "no lr_schedulers"),
    "a schedule less": (put("lr_schedulers", value=[]), "0 lr_schedulers.*has 1"),
    "a schedule that is text": (put("lr_schedulers", value=["x"]), r"lr_schedulers are \['x'\]"),
    "no callbacks": (without("callbacks"), "no callbacks"),
    "callbacks as text": (put("callbacks", value="x"), "callbacks is a str"),
    "no loops": (without("loops"), "no position of training"),
    "empty loops": (put("loops", value={}), "no position of training"),
    "loops as text": (put("loops", value="x"), "loops is a str"),
    "loops without a counter": (lambda state: state["loops"]["fit_loop"].pop("epoch_progress"), "epoch_progress"),
    "a counter that is text": (put(*BATCHES, "total", value="x"), "position of training that is damaged"),
    "a counter below zero": (put(*BATCHES, "total", "processed", value=-5), "processed=-5"),
    "no steps": (without("global_step"), "no global_step"),
    "steps as text": (put("global_step", value="x"), "global_step is a str"),
    "no version": (without("pytorch-lightning_version"), "no pytorch-lightning_version"),
    "data as text": (put("QADataModule", value="x"), "position of training that is damaged"),
    "the policy as text": (put("nrt_lightning", "policy", value="x"), "policy in it is 'x'"),
    "another vocabulary": (put("nrt_lightning", "policy", "vocabulary", value=7), "vocabulary 7"),
    "weights alone": (lambda state: state["state_dict"], "no state_dict"),
    "a list": (lambda state: [1, 2], "it holds a list"),
    "a tensor": (lambda state: torch.zeros(3), "it holds a Tensor"),
    "an empty dict": (lambda state: {}, "no state_dict"),
}  # fmt: skip
REPLACES = ("weights alone", "a list", "a tensor", "an empty dict")
WITHOUT_PATH = ("the policy as text", "another vocabulary")


@pytest.mark.parametrize("name", OF_THE_CONTENTS)
def test_contents_that_no_run_has_saved_are_refused(name, saved, trainer, tmp_path):
    change, words = OF_THE_CONTENTS[name]
    state = copy.deepcopy(saved[1])
    made = change(state)
    torch.save(made if name in REPLACES else state, tmp_path / "x.ckpt")
    with pytest.raises(InputError, match=words if name in WITHOUT_PATH else rf"(x\.ckpt.*{words}|{words}.*x\.ckpt)"):
        trainer(max_steps=3).fit(nrt_module(), registers(val=None), ckpt_path=tmp_path / "x.ckpt")


def test_a_checkpoint_with_code_is_refused_by_name(saved, trainer, tmp_path, capsys):
    torch.save(saved[1] | {"callbacks": {"x": Payload()}}, tmp_path / "x.ckpt")
    with pytest.raises(InputError, match=r"x\.ckpt holds more than tensors and plain values"):
        trainer(max_steps=3).fit(nrt_module(), registers(val=None), ckpt_path=tmp_path / "x.ckpt")
    assert "this ran" not in capsys.readouterr().out


def test_a_checkpoint_as_it_was_saved_is_resumed(saved, trainer):
    made = trainer(max_steps=3)
    made.fit(nrt_module(), registers(val=None), ckpt_path=saved[0])
    assert made.global_step == 3
