"""Checkpoint directories, with a file per process, that a kill or a flipped bit cannot take away."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nrt_lightning.errors import InputError
from nrt_lightning.models.policy.fingerprint import check_same_policy
from nrt_lightning.strategies.checkpoint_contents import check_weights
from nrt_lightning.strategies.checkpoint_io import before_of, remove, synchronize, undamaged
from nrt_lightning.strategies.checkpoints import read_metadata, remote
from nrt_lightning.strategies.manifest import NEEDED, digests, write_manifest
from nrt_lightning.strategies.processes import Processes, gather_objects


def make_safe(strategy: Any) -> None:
    """Let a sharding strategy write its directories safely, and read only undamaged checkpoints of the same policy.

    A directory is written beside its place, with a manifest of digests, synchronized to the disk, and renamed at the
    end. The one of that name that was written before is kept as `.NAME.before`; it is read where the other is missing,
    unfinished or damaged, with a warning. Lightning writes and reads such directories without a `CheckpointIO`.
    """
    if "load_checkpoint" in vars(strategy):
        return
    save, load = strategy.save_checkpoint, strategy.load_checkpoint

    def save_checkpoint(checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        if writes_directories(strategy) and storage_options is None:
            save_directory(strategy, save, checkpoint, Path(strategy.broadcast(filepath)))
        else:
            save(checkpoint, filepath, storage_options)

    def load_checkpoint(checkpoint_path: Any, *args: Any, **settings: Any) -> dict[str, Any]:
        if remote(checkpoint_path):
            return load(checkpoint_path, *args, **settings)
        weights_only = settings.get("weights_only") is not False
        path = same_undamaged(strategy, Path(checkpoint_path), weights_only=weights_only)
        saved = read_metadata(path, weights_only=weights_only).get("nrt_lightning", {})
        check_same_policy(saved.get("policy", {}), strategy.lightning_module.policy)
        found = load(path, *args, **settings)
        check_finite(strategy, dict(strategy.lightning_module.named_parameters()), path)
        return found

    strategy.save_checkpoint, strategy.load_checkpoint = save_checkpoint, load_checkpoint


def writes_directories(strategy: Any) -> bool:
    """True if checkpoints have a file per process."""
    sharded = getattr(strategy, "_state_dict_type", None) == "sharded"
    return sharded or bool(getattr(strategy, "_save_distributed_checkpoint", False))


def save_directory(strategy: Any, save: Any, checkpoint: dict[str, Any], target: Path) -> None:
    """Write a checkpoint directory; all processes call it together."""
    check_finite(strategy, checkpoint.get("state_dict", {}), target)
    part, rank = target.with_name(f".{target.name}.part"), strategy.global_rank
    if rank == 0:
        remove(part)
    strategy.barrier()
    save(checkpoint, part)
    strategy.barrier()  # the last files are those of process 0
    mine = [path.name for path in part.glob(f"__{rank}_*")] + (list(NEEDED) if rank == 0 else [])
    everyone = gather_objects(digests(part, mine))
    if rank == 0:
        write_manifest(part, {name: digest for found in everyone for name, digest in found.items()})
        synchronize(part)
        put_directory_in_place(part, target, keep_before=getattr(strategy.checkpoint_io, "keep_before", True))
    strategy.barrier()


def put_directory_in_place(part: Path, target: Path, *, keep_before: bool) -> None:
    """Give a written directory its name. At every moment, the directory or the one before is whole."""
    before = before_of(target)
    if target.is_symlink():
        target.unlink()
    elif target.exists():
        remove(before)
        os.replace(target, before)
    os.replace(part, target)
    synchronize(target.parent)
    if not keep_before:
        remove(before)


def same_undamaged(strategy: Any, path: Path, *, weights_only: bool = True) -> Path:
    """`undamaged`, decided by the first process for all.

    Raises:
        InputError: names the file and what is wrong with it.
    """
    found = problem = None
    if strategy.global_rank == 0:
        try:
            found = undamaged(path, weights_only=weights_only)
        except InputError as error:
            problem = str(error)
    found, problem = strategy.broadcast((found, problem))
    if problem is not None:
        raise InputError(problem)
    assert found is not None
    return found


def check_finite(strategy: Any, weights: Mapping[str, Any], path: Any) -> None:
    """Check that the weights are finite, in the parts that each process has; all raise together.

    Raises:
        InputError: names the checkpoint, and the weight where this process has it.
    """
    own = {name: local(weight) for name, weight in weights.items()}
    error = None
    try:
        check_weights({"state_dict": own}, path)
    except InputError as found:
        error = found
    if Processes(strategy).largest(int(error is not None)):
        raise error or InputError(f"A weight in another process is not finite, so {path} is neither written nor used.")


def local(weight: Any) -> Any:
    """The part of a sharded tensor that this process has."""
    if hasattr(weight, "_local_tensor"):
        return weight._local_tensor
    if hasattr(weight, "local_shards"):  # FSDP1
        shards = [shard.tensor.reshape(-1) for shard in weight.local_shards()]
        return torch.cat(shards) if shards else None
    return weight
