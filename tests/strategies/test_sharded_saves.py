"""Checkpoint directories that are damaged, half written or killed while they are put in place."""

import os
from pathlib import Path

import pytest
import torch

from nrt_lightning import InputError
from nrt_lightning.cli.checkpoints import checkpoints_in, from_undamaged, whole
from nrt_lightning.strategies.checkpoint_io import SafeCheckpointIO, before_of, damage, link_in_place
from nrt_lightning.strategies.manifest import NAME
from nrt_lightning.strategies.sharded_saves import save_directory, writes_directories


class Strategy:
    """A process without others, whose strategy writes two files and the metadata."""

    global_rank, checkpoint_io, world_size = 0, SafeCheckpointIO(), 1

    def __init__(self, dies_after=None):
        self.dies_after = dies_after

    def barrier(self):
        pass

    def broadcast(self, value):
        return value

    def write(self, checkpoint, path):
        path.mkdir(parents=True)
        for name in ("__0_0.distcp", "__0_1.distcp", ".metadata"):
            (path / name).write_bytes(name.encode() * 1000)
            if name == self.dies_after:
                os._exit(9)
        torch.save(checkpoint, path / "meta.pt")

    def save(self, number, path):
        checkpoint = {"global_step": number, "state_dict": {"weight": torch.ones(3)}}
        save_directory(self, self.write, checkpoint, path)


def step_of(path) -> int:
    return torch.load(path / "meta.pt", weights_only=True)["global_step"]


@pytest.fixture
def path(tmp_path):
    """The second checkpoint of this name."""
    for number in (1, 2):
        Strategy().save(number, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def test_a_directory_has_digests_and_the_one_before_is_kept(path):
    assert damage(path) is None
    assert damage(before_of(path)) is None
    assert (step_of(path), step_of(before_of(path))) == (2, 1)
    assert {file.name for file in path.parent.iterdir()} == {"last.ckpt", ".last.ckpt.before"}


def flip(file: Path):
    data = file.read_bytes()
    file.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])


DAMAGES = {
    "a flipped bit in a shard": (lambda path: flip(path / "__0_1.distcp"), "digest of __0_1.distcp differs"),
    "a flipped bit in meta.pt": (lambda path: flip(path / "meta.pt"), "digest of meta.pt differs"),
    "a missing shard": (lambda path: (path / "__0_0.distcp").unlink(), "__0_0.distcp is missing"),
    "half a shard": (lambda path: os.truncate(path / "__0_0.distcp", 100), "digest of __0_0.distcp"),
    "no metadata": (lambda path: (path / ".metadata").unlink(), "not finished: .metadata"),
    "no meta.pt": (lambda path: (path / "meta.pt").unlink(), "not finished: meta.pt"),
    "a manifest that is text": (lambda path: (path / NAME).write_text("no"), NAME),
    "a manifest that is a list": (lambda path: (path / NAME).write_text("[]"), NAME),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_directory_falls_back_to_the_one_before_and_says_so(path, caplog, name):
    harm, words = DAMAGES[name]
    harm(path)
    assert words in str(damage(path))
    assert whole(str(path)) == str(before_of(path))
    assert "last.ckpt is not used" in caplog.text
    if "meta.pt" not in name:
        assert from_undamaged(checkpoints_in([path.parent], None))[0].path == before_of(path)
    harm(before_of(path))
    with pytest.raises(InputError, match=r"last\.ckpt cannot be used.*Give another"):
        whole(str(path))


@pytest.mark.parametrize("moment", ["__0_0.distcp", ".metadata", "manifest", "before", "replace"])
def test_a_run_that_dies_while_it_writes_loses_nothing(path, monkeypatch, moment):
    child = os.fork()
    if child == 0:
        replace, left = os.replace, [{"before": 0, "replace": 1}.get(moment, 9)]

        def dies(*args):
            if left[0] == 0:
                os._exit(9)
            left[0] -= 1
            replace(*args)

        monkeypatch.setattr(os, "replace", dies)
        if moment == "manifest":
            monkeypatch.setattr("nrt_lightning.strategies.sharded_saves.write_manifest", lambda *a: os._exit(9))
        Strategy(moment).save(3, path)
        os._exit(0)
    assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 9
    assert step_of(Path(whole(str(path)))) == 2
    Strategy().save(4, path)
    assert (damage(path), step_of(path), damage(before_of(path))) == (None, 4, None)


def test_weights_that_are_not_finite_are_not_written(path):
    bad = {"state_dict": {"weight": torch.tensor([1.0, float("nan")])}}
    with pytest.raises(InputError, match=r"weight is not finite.*last\.ckpt"):
        save_directory(Strategy(), None, bad, path)
    assert step_of(path) == 2


def test_a_directory_without_manifest_is_only_known_to_be_finished(path):
    (path / NAME).unlink()
    assert damage(path) is None


def test_files_directories_and_links_replace_each_other(path, trainer):
    io = SafeCheckpointIO()
    other = path.with_name("other.ckpt")
    io.save_checkpoint({"global_step": 5, "state_dict": {}, "pytorch-lightning_version": "2.6"}, other)
    link_in_place(trainer(), str(other), str(path))
    assert path.is_symlink()
    assert step_of(before_of(path)) == 2
    Strategy().save(6, path)
    assert (path.is_symlink(), step_of(path)) == (False, 6)
    Strategy().save(7, other)
    assert (step_of(other), before_of(other).is_file()) == (7, True)
    SafeCheckpointIO().remove_checkpoint(other)
    assert not other.exists()
    assert not before_of(other).exists()


def test_which_strategies_write_directories():
    for name, value, expected in (
        ("_state_dict_type", "sharded", True), ("_state_dict_type", "full", False),
        ("_save_distributed_checkpoint", True, True), ("_save_distributed_checkpoint", False, False),
    ):  # fmt: skip
        assert writes_directories(type("Strategy", (), {name: value})()) == expected
