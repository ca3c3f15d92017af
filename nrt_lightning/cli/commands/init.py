"""`nrt-lightning init`: write one commented YAML for your rows, your model and your machine."""

from __future__ import annotations

import shlex
from pathlib import Path

from nrt_lightning.callbacks.run_folder import check_parent
from nrt_lightning.cli.parser import PlainParser
from nrt_lightning.cli.starter import Machine, ModelFacts, RowFacts, fill, settings_for, told, with_place
from nrt_lightning.configs import FOLDER
from nrt_lightning.errors import InputError

NEXT = ("preflight", "plan", "fit", "validate --ckpt_path=best", "export --out=trained", "chat trained")
TEMPLATE = "own_data"  # the config that is written if no rows and no model are given


def main(args: list[str]) -> None:
    """Look at rows, model and machine, write the config, and print what was found and what to do next.

    Args:
        args: options of the command.
    """
    parser = PlainParser(
        prog="nrt-lightning init",
        description="Write one commented YAML for your rows, your model and your machine.",
    )
    parser.add_argument(
        "--data", type=str | None, default=None, help="rows: CSV, TSV, JSON lines, JSON, Parquet, directory, hub name"
    )
    parser.add_argument("--model", type=str | None, default=None, help="directory, hub id or embedded base")
    parser.add_argument("--question", type=str | None, default=None, help="column of the question; found by its name")
    parser.add_argument("--answer", type=str | None, default=None, help="column of the answer; found by its name")
    parser.add_argument("--output", type=str, default="run.yaml", help="file to write; must not exist")
    options = parser.parse_args(args)
    path = Path(options.output).expanduser()
    check_output(path)
    named = [f"--{name}" for name in ("question", "answer") if options[name] is not None]
    if named and options.data is None:
        raise InputError(f"{' and '.join(named)} without --data: there are no columns. Give the file as --data.")
    model = None if options.model is None else ModelFacts.read(options.model)
    rows = None if options.data is None else RowFacts.read(options.data, options.question, options.answer)
    machine = None if model is None and rows is None else Machine.here()
    settings = settings_for(options.output, rows, model, machine)
    text = fill((FOLDER / f"{TEMPLATE}.yaml").read_text(encoding="utf-8"), settings)
    text = starting_config(options.output, with_place(text, model))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
    print(told(rows, model, machine, text))
    print(f"written to {options.output}. Next:")
    for command in NEXT:
        word, _, rest = command.partition(" ")
        config = f" --config {shlex.quote(options.output)}" if word != "chat" else ""
        print(f"  nrt-lightning {word}{config} {rest}".rstrip())


def starting_config(output: str, text: str) -> str:
    """The text with the command for this file in its first line."""
    rest = text.partition("\n")[2]
    return f"# nrt-lightning fit --config {shlex.quote(output)}\n{rest}"


def check_output(path: Path) -> None:
    """Check that the config can be written and replaces nothing.

    Raises:
        InputError: names the file.
    """
    if path.exists() or path.is_symlink():
        raise InputError(f"--output={str(path)!r} exists and is not written over. Give another name as --output.")
    if not str(path).isprintable() or path.suffix not in (".yaml", ".yml"):
        raise InputError(f"--output={str(path)!r}: give a name that ends with .yaml.")
    check_parent(path, "--output")
