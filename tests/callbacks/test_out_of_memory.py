"""A step that runs out of memory names its lengths."""

import sys

import pytest
import torch
from short_runs import nrt_module, registers

from nrt_lightning import InputError, Policy, SFTModule
from nrt_lightning.cli import main as command_line


def full(*args, **settings):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("kind", ["nrt", "sft"])
def test_the_message_names_step_lengths_and_settings(kind, trainer, monkeypatch):
    module = nrt_module() if kind == "nrt" else SFTModule(Policy("embedded:registers-base"))
    plain = module.training_step
    monkeypatch.setattr(
        module, "training_step", lambda *args: (full if module.trainer.global_step == 1 else plain)(*args)
    )
    with pytest.raises(torch.OutOfMemoryError, match=r"2\.00 GiB") as error:
        trainer(max_steps=3).fit(module, registers(val=None))
    words = str(error.value.__cause__)
    assert isinstance(error.value.__cause__, InputError)
    assert words.startswith("step 1 ran out of memory with ")
    assert ("12 traces of up to" if kind == "nrt" else "3 rows of up to") in words
    for name in ("max_tokens_per_micro_batch", "data.batch_size", "max_trace_tokens", "2.00 GiB"):
        assert name in words


def test_the_command_line_says_it_in_one_line(monkeypatch):
    def run():
        try:
            full()
        except torch.OutOfMemoryError as error:
            error.__cause__ = InputError("step 7 ran out of memory")
            raise

    monkeypatch.setattr(command_line, "prepared", lambda args: run)
    monkeypatch.setattr(sys, "argv", ["nrt-lightning"])
    with pytest.raises(SystemExit, match="error: step 7 ran out of memory"):
        command_line.main()
