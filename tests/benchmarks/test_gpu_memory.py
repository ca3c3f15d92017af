"""The script that measures steps on a GPU: a small version on a CPU, and the full one on a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_memory

pytest.importorskip("bitsandbytes")
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("script", [gpu, gpu_memory])
def test_without_a_gpu_it_says_so(script, capsys: pytest.CaptureFixture[str]) -> None:
    script.main([])
    assert "no CUDA device" in capsys.readouterr().out


@pytest.mark.slow
def test_a_step_in_four_bits_is_measured(tmp_path: Path) -> None:
    gpu_memory.main(["--runs", "tiny-qlora", "--device", "cpu", "--json", f"{tmp_path}/found.json"])
    (found,) = json.loads((tmp_path / "found.json").read_text()).values()
    assert found["rollout tokens/s"] > 0
    assert found["learning tokens/s"] > 0
    assert 0 < found["planned, GiB"] < 1


@GPU
@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("run", ["8B-qlora", "1B-lora", "3B-lora"])
def test_a_step_fits_under_24_gib_as_planned(run: str, tmp_path: Path) -> None:
    gpu_memory.main(["--runs", run, "--cap", "24", "--json", f"{tmp_path}/found.json"])
    (found,) = json.loads((tmp_path / "found.json").read_text()).values()  # none where it did not fit
    assert found["peak, GiB"] < 24
    assert found["planned, GiB"] == pytest.approx(found["peak, GiB"], rel=0.2)
