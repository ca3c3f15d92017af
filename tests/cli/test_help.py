"""Help on one screen, with options that exist; no abbreviations; the version."""

from __future__ import annotations

import pytest
from lightning.pytorch import Trainer

import nrt_lightning
from nrt_lightning.cli.help import SETTINGS, TRAINER, own_options
from nrt_lightning.cli.lightning_cli import NRTCLI, Parser, make_cli
from nrt_lightning.cli.main import COMMANDS, run

RUNS = ["fit", "validate", "test", "predict", "plan", "preflight", "serve"]


def shown(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> str:
    with pytest.raises(SystemExit) as caught:
        run(list(args))
    assert caught.value.code in ((0, None) if code == 0 else (code,))
    return capsys.readouterr().out


@pytest.mark.parametrize("command", RUNS)
def test_help_fits_on_a_screen_and_names_our_options(capsys: pytest.CaptureFixture[str], command: str) -> None:
    lines = shown(capsys, command, "--help").splitlines()
    assert lines[0].startswith(f"usage: nrt-lightning {command} --config")
    assert len(lines) <= 55
    assert max(map(len, lines)) <= 120
    text = "\n".join(lines)
    for word in ("nrt:NAME", "--model.policy.model", "--data.train", "--trainer.max_epochs", "--model.help=NRTModule"):
        assert word in text


@pytest.mark.parametrize(
    ("command", "own"), [("plan", "--plan.device_gib"), ("preflight", "--rows"), ("serve", "--serve.port"),
                         ("fit", "--ckpt_path")])  # fmt: skip
def test_help_has_the_options_of_the_command_first(capsys: pytest.CaptureFixture[str], command: str, own: str) -> None:
    text = shown(capsys, command, "--help")
    assert text.index(own) < text.index("--model.policy.model")


def test_a_class_and_all_options_can_be_seen(capsys: pytest.CaptureFixture[str]) -> None:
    assert ".sampling" in shown(capsys, "fit", "--model.help=NRTModule")
    whole = shown(capsys, "fit", "--help=all")
    assert "--trainer.limit_train_batches" in whole
    assert "--trainer.limit_train_batches" not in shown(capsys, "fit", "--help")


@pytest.mark.parametrize("option", ["--model.help=NRTModule", "--trainer.callbacks.help=ResultsFile"])
def test_help_of_a_class_names_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setattr("sys.argv", ["nrt_lightning/__main__.py"])
    assert shown(capsys, "fit", option).startswith("usage: nrt-lightning ")


def test_options_of_the_help_are_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"NAME": "auto", "N": "3", "PATH": "here.jsonl", "RATE": "0.1", "CLASS": ""}
    classes = {"model": "NRTModule", "model.aggregator": "GeometricMean", "trainer.callbacks+": "TraceSamples"}
    options = []
    for name in (option for part in ("model", "data", "trainer") for option in SETTINGS[part]):
        key, _, value = name.removeprefix("--").partition("=")
        options.append(f"--{key}={classes.get(key) or values.get(value, value)}")
    shown(capsys, "fit", "--config=nrt:quickstart", *options, "--print_config")


def test_the_command_alone_lists_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for args, code in (((), 2), (("--help",), 0)):
        text = shown(capsys, *args, code=code)
        assert [name for name in [*RUNS, *COMMANDS] if f"\n  {name} " not in text] == []


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "--version").startswith(f"nrt-lightning {nrt_lightning.__version__} (torch ")


@pytest.mark.parametrize("command", [*RUNS, "compare", "export"])
def test_options_are_not_abbreviated(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as caught:
        run([command, "--conf=nrt:quickstart"])
    assert caught.value.code == 2
    assert "--conf is not an option" in capsys.readouterr().err


def test_help_that_needs_no_parser_has_the_options_of_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(TRAINER) == list(NRTCLI.subcommands())
    for name, command in TRAINER.items():
        parser = Parser()
        added = parser.add_method_arguments(Trainer, name, skip=set(NRTCLI.subcommands()[name]))
        assert added
        assert list(own_options(parser).items()) == list(command.options.items())
        assert (getattr(Trainer, name).__doc__ or "").split("\n", 1)[0].startswith(command.description)


def test_only_the_parser_of_the_command_is_built(capsys: pytest.CaptureFixture[str]) -> None:
    built = []

    class Counted(NRTCLI):
        def _prepare_subcommand_parser(self, klass, subcommand, **kwargs):
            built.append(subcommand)
            return super()._prepare_subcommand_parser(klass, subcommand, **kwargs)

    with pytest.raises(SystemExit):
        make_cli(Counted, ["validate", "--modle.x=1"])
    assert built == ["validate"]
    assert "--modle.x is not an option. Did you mean 'model.x'?" in capsys.readouterr().err
