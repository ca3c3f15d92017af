"""Files given where no file of settings belongs. The parser would read them, and quote their content in its errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import yaml

from nrt_lightning.errors import InputError

NO_CONFIG = "the file holds no settings. Write YAML of the form `trainer: {max_steps: 10}`."
CONFIGS = ("config", "c")
CLASSES = ("data", "model", "trainer.callbacks", "trainer.logger")  # options that take a class
SOURCES = tuple(f"data.{split}" for split in ("train", "val", "test", "predict"))


def given_options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Names and values of options.

    >>> list(given_options(["fit", "--config", "mine.yaml", "--data=rows.csv", "--trainer.callbacks+=x"]))
    [('config', 'mine.yaml'), ('data', 'rows.csv'), ('trainer.callbacks', 'x')]
    """
    for word, following in pairwise([*words, ""]):
        name, equals, value = word.partition("=")
        if name.startswith("-"):
            yield name.lstrip("-").rstrip("+"), value if equals else following


def files_given(words: Sequence[str]) -> dict[str, str]:
    """Paths of existing files by the option that they were given to, without configs and rows."""
    found = {}
    for name, value in given_options(words):
        if name not in (*CONFIGS, *SOURCES) and is_file(value):
            found[name] = value
    return found


def is_file(value: str) -> bool:
    """True for a file, a pipe or a device."""
    try:
        return Path(value).exists() and not Path(value).is_dir()
    except (OSError, ValueError):  # too long, or a null character
        return False


def is_rows(value: str) -> bool:
    """True for a file of rows, whose suffix no config has."""
    suffix = Path(value).suffix.lower()
    if suffix in ("", ".json", ".yaml", ".yml") or not is_file(value):
        return False
    from nrt_lightning.data.readers import READERS  # imports torch

    return suffix in READERS


def check_files(words: Sequence[str], *, classes: bool) -> None:
    """Refuse files of rows where the parser would read settings.

    Args:
        words: arguments of a command.
        classes: the command takes classes for `--data` and `--model`.

    Raises:
        InputError: names the option, the file and the option that was probably meant.
    """
    for name, value in given_options(words):
        if name in CONFIGS and (not value or value.startswith("--")):
            raise InputError("--config: no file is given. Write --config FILE.")
        if is_rows(value):
            if name in CONFIGS:
                raise InputError(
                    f"--config {value}: a file of rows, no YAML config. Did you mean --{SOURCES[0]}={value}?"
                )
            if classes and name in CLASSES:
                raise InputError(no_settings(name, value))
        elif name in CONFIGS:
            check_config(value)


def check_config(name: str) -> None:
    """Refuse a config that is no YAML of settings; the parser would not name the file, or take the last of two values.

    Raises:
        InputError: names the file and the line.
    """
    try:
        path = Path(name)
        if path.is_dir():
            raise InputError(f"--config {name}: a directory. Give a YAML file.")
        if path.is_file() and path.suffix != ".json":  # a pipe can be read only once
            check_settings(yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader), name)
    except UnicodeDecodeError as error:
        raise InputError(
            f"--config {name}: not UTF-8 text (byte {error.object[error.start]:#x}). Save it as UTF-8."
        ) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f":{mark.line + 1}"
        raise InputError(
            f"--config {name}{line}: not valid YAML ({error.problem}). Write `name: value`, indented with spaces."
        ) from None
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"--config {name} cannot be read ({' '.join(str(error).split())}).") from None


def check_settings(root: yaml.Node | None, name: str) -> None:
    """Refuse keys that are given twice in a mapping, and parts without settings.

    Args:
        root: of the file.
        name: of the file.

    Raises:
        InputError: names the file, the line and the key.
    """
    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"--config {name}: {NO_CONFIG}")
    waiting, seen = [(root, "")], set()
    while waiting:
        node, at = waiting.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += [(part, f"{at}[{number}]") for number, part in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            continue
        lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            line, setting = key.start_mark.line + 1, f"{at}.{key.value}".lstrip(".")
            if first := lines.get(key.value):
                raise InputError(
                    f"--config {name}:{line}: {setting} is given twice, first on line {first}. Merge the two."
                )
            if value.tag == "tag:yaml.org,2002:null" and (setting == "trainer" or key.value == "init_args"):
                raise InputError(
                    f"--config {name}:{line}: {setting} has no settings. Indent them below it, or remove the line."
                )
            lines[key.value] = line
            waiting.append((value, setting))


def no_settings(name: str, path: str) -> str:
    """What is wrong with a file that holds no settings of an option."""
    rows = is_rows(path) or Path(path).suffix.lower() == ".json"
    meant = f" Did you mean --{SOURCES[0]}={path}?" if rows else " It takes a class, or a YAML file with its settings."
    return f"--{name}={path}: the file holds no settings of {name}.{meant}"


def config_without_settings(words: Sequence[str]) -> str:
    """The message for the config whose content is no mapping of settings."""
    for name, value in given_options(words):
        if name in CONFIGS and is_file(value):
            try:
                found = yaml.safe_load(Path(value).read_text(encoding="utf-8"))
            except (OSError, ValueError, yaml.YAMLError):
                found = None
            if not isinstance(found, dict):
                return f"--config {value}: {NO_CONFIG}"
    return f"--config: {NO_CONFIG}"
