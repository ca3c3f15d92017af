"""Commands are found by their files."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from nrt_lightning.cli import commands
from nrt_lightning.cli.main import COMMANDS, run


def test_every_file_is_a_command_that_says_what_it_does() -> None:
    files = {path.stem for path in Path(commands.__file__).parent.glob("[a-z]*.py")}
    assert (
        files
        == set(COMMANDS)
        == {"chat", "compare", "configs", "evaluate", "export", "init", "plan", "preflight", "report", "serve"}
    )
    for name in files:
        assert str(import_module(COMMANDS[name]).__doc__).startswith(f"`nrt-lightning {name}`: ")


def test_a_command_gets_its_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (tmp_path / "greet.py").write_text("def main(args):\n    print('hello', *args)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(COMMANDS, "greet", "greet")
    assert run(["greet", "you"]) is None
    assert capsys.readouterr().out == "hello you\n"
