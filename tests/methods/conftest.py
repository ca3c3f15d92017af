"""Isolate the tests from the command line and the seed of the process."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["nrt-lightning"])
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
