"""Checkpoints that are damaged, half written or not finite."""

import os
import time

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from short_runs import nrt_module, registers

from nrt_lightning import ConstantSchedule, InputError
from nrt_lightning.cli.checkpoints import checkpoints_in, from_undamaged, whole
from nrt_lightning.strategies.checkpoint_contents import finite
from nrt_lightning.strategies.checkpoint_io import SafeCheckpointIO, before_of, damage, link_in_place


def state(number: int, size: int = 1000) -> dict:
    weights = {"weight": torch.full((size,), float(number))}
    return {"global_step": number, "state_dict": weights, "pytorch-lightning_version": "2.6.0"}


@pytest.fixture
def path(tmp_path):
    """The second checkpoint of this name."""
    path, io = tmp_path / "last.ckpt", SafeCheckpointIO()
    for number in (1, 2):
        io.save_checkpoint(state(number), path)
    return path


def step_of(path) -> int:
    return SafeCheckpointIO().load_checkpoint(path, weights_only=True)["global_step"]


def test_a_checkpoint_is_one_that_torch_reads(path):
    assert torch.load(path, weights_only=True)["global_step"] == 2
    assert torch.load(path, weights_only=True, mmap=True)["state_dict"]["weight"][0] == 2
    assert step_of(path) == 2
    assert {file.name for file in path.parent.iterdir()} == {"last.ckpt", ".last.ckpt.before"}
    assert step_of(before_of(path)) == 1


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


DAMAGES = {
    "a flipped bit": flip,
    "half of the file": lambda data: data[: len(data) // 2],
    "nothing": lambda data: b"",
    "the last byte missing": lambda data: data[:-1],
    "zeros at the end": lambda data: data[:-500] + bytes(500),
    "text": lambda data: b"no checkpoint",
    "a flipped bit in the pickle": lambda data: data.replace(b"global_step", b"global_stet", 1),
    "zeros in the middle": lambda data: data[:2000] + bytes(100) + data[2100:],
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(path, caplog, name):
    path.write_bytes(DAMAGES[name](path.read_bytes()))
    assert step_of(path) == 1
    assert "last.ckpt is not used" in caplog.text
    assert ".last.ckpt.before" in caplog.text
    assert whole(str(path)) == str(before_of(path))
    before_of(path).unlink()
    with pytest.raises(InputError, match=r"last\.ckpt cannot be used.*Give another"):
        step_of(path)


def test_a_missing_checkpoint_falls_back_too(path, caplog):
    path.unlink()
    assert step_of(path) == 1
    assert "does not exist" in caplog.text
    assert from_undamaged(checkpoints_in([path.parent], None))[0].path == before_of(path)


def test_auto_leaves_a_damaged_checkpoint_out(path, caplog):
    path.write_bytes(flip(path.read_bytes()))
    found = from_undamaged(checkpoints_in([path.parent], None))
    assert [one.path for one in found] == [before_of(path)]
    assert "checksum" in caplog.text


@pytest.mark.parametrize("moment", ["write", "fsync", "replace"])
def test_a_run_that_dies_while_it_writes_loses_nothing(path, monkeypatch, moment):
    def dies(*args, **settings):
        os._exit(9)

    child = os.fork()
    if child == 0:
        if moment == "write":
            monkeypatch.setattr(torch, "save", lambda checkpoint, file: (file.write(b"PK half"), file.flush(), dies()))
        else:
            monkeypatch.setattr(os, moment, dies)
        SafeCheckpointIO().save_checkpoint(state(3), path)
        os._exit(0)
    assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 9
    assert step_of(path) == 2
    SafeCheckpointIO().save_checkpoint(state(3), path)
    assert (step_of(path), step_of(before_of(path))) == (3, 2)


def test_a_full_disk_leaves_the_checkpoint(path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        SafeCheckpointIO().save_checkpoint(state(3), path)
    assert step_of(path) == 2
    assert not list(path.parent.glob("*.part"))


def test_weights_that_are_not_finite_are_neither_written_nor_read(path, tmp_path):
    bad = state(3)
    bad["state_dict"]["weight"][7] = float("nan")
    with pytest.raises(InputError, match=r"weight is not finite.*last\.ckpt"):
        SafeCheckpointIO().save_checkpoint(bad, path)
    assert step_of(path) == 2
    torch.save(bad, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=r"weight is not finite.*other\.ckpt"):
        step_of(tmp_path / "other.ckpt")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_large_values_are_finite_and_no_others_cancel(dtype):
    large = torch.full((1000,), torch.finfo(dtype).max, dtype=dtype)
    assert finite(large), "though their sum is not"
    for bad in (float("nan"), float("inf"), -float("inf")):
        assert not finite(torch.cat([large, torch.tensor([bad], dtype=dtype)]))
    infinite = torch.tensor([float("inf"), -float("inf"), 1.0], dtype=dtype)
    assert not finite(infinite)


def test_files_of_others_are_read(tmp_path):
    for name, new in (("plain", True), ("old", False)):
        torch.save(state(5), tmp_path / name, _use_new_zipfile_serialization=new)
        assert step_of(tmp_path / name) == 5
        assert damage(tmp_path / name) is None


def test_removing_a_checkpoint_removes_the_one_before(path):
    SafeCheckpointIO().remove_checkpoint(path)
    assert not list(path.parent.iterdir())


def test_a_link_is_replaced_at_once(path, trainer):
    link = path.with_name("link.ckpt")
    made = trainer()
    for target in (before_of(path), path):
        link_in_place(made, str(target), str(link))
        assert link.is_symlink()
        assert step_of(link) == step_of(target)


def test_the_modules_write_safely(trainer, tmp_path):
    for save_last in (True, "link"):
        saves = ModelCheckpoint(tmp_path / str(save_last), every_n_train_steps=1, save_last=save_last)
        made = trainer(callbacks=[saves], enable_checkpointing=True, max_steps=2)
        made.fit(nrt_module(schedule=ConstantSchedule(warmup=0)), registers(val=None))
        last = tmp_path / str(save_last) / "last.ckpt"
        assert damage(last) is None
    assert last.is_symlink()


def test_a_directory_that_cannot_be_written_is_found_at_the_start(trainer, tmp_path):
    (tmp_path / "file").write_text("")
    saves = ModelCheckpoint(tmp_path / "file" / "checkpoints", every_n_train_steps=1)
    with pytest.raises(InputError, match=r"ModelCheckpoint\.dirpath=.*file.*cannot be written"):
        trainer(callbacks=[saves], enable_checkpointing=True).fit(nrt_module(), registers())


def test_an_optimizer_without_its_state_is_refused(trainer, tmp_path):
    made = trainer(max_steps=2, enable_checkpointing=True, callbacks=[ModelCheckpoint(tmp_path, save_last=True)])
    made.fit(nrt_module(), registers(val=None))
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    saved["optimizer_states"][0]["state"] = {}
    torch.save(saved, tmp_path / "empty.ckpt")
    with pytest.raises(InputError, match=r"empty\.ckpt.*optimizer without state after 2 steps"):
        trainer(max_steps=3).fit(nrt_module(), registers(val=None), ckpt_path=tmp_path / "empty.ckpt")


@pytest.mark.slow
def test_a_checkpoint_takes_at_most_half_as_long_again(tmp_path):
    """Compared with torch.save and fsync of the same bytes, the best of five each."""
    large, io = state(1, 2**27), SafeCheckpointIO(keep_before=False)

    def plain(path):
        with path.open("wb") as file:
            torch.save(large, file)
            file.flush()
            os.fsync(file.fileno())

    times = {}
    for name, save in {"plain": plain, "safe": lambda path: io.save_checkpoint(large, path)}.items():
        seconds = []
        for _ in range(5):
            started = time.perf_counter()
            save(tmp_path / f"{name}.ckpt")
            seconds.append(time.perf_counter() - started)
        times[name] = min(seconds)
    assert times["safe"] < 1.5 * times["plain"], times
