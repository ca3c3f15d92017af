"""One line for a parser's error: the setting, its value, the nearest name or the fix."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nrt_lightning.cli.files_given import config_without_settings, files_given, no_settings
from nrt_lightning.cli.leaves import LEAVES, Leaf, found_in, value_in
from nrt_lightning.cli.names import (
    arguments,
    attribute,
    class_names,
    classes_in,
    holders,
    in_module,
    of_another_kind,
    option_like,
    own_classes,
    parameters,
    types_of,
)
from nrt_lightning.configs import same_name
from nrt_lightning.errors import nearest

BASES = ("lightning.LightningModule", "lightning.LightningDataModule")  # stand for a class that is not known yet
NOISE = re.compile(
    r"Expected a path but|Expected a <class 'NoneType'>|Subtypes:|Errors:|Given value|Does not validate against|"
    r"Problem with given class_path|Parser key|Type typing.Callable"
)


def explain(
    message: str, options: list[str], words: Sequence[str] = (), types: Mapping[str, Any] = MappingProxyType({})
) -> str:
    """A parser's error message in one line.

    Args:
        message: error message of the parser.
        options: option names of the parser.
        words: arguments that were parsed.
        types: of the command's own options, by name.

    >>> explain("unrecognized arguments: --optimizer.lr=1", [])
    "--optimizer.lr is not an option. Did you mean 'model.optimizer.lr'?"
    """
    if found := re.match(r".*does not accept option '([\w.+-]+)|Key '([\w.+-]+)' is not expected", message):
        name = found[1] or found[2]
        return f"{name!r} is not a setting.{option_like(name.rstrip('+'), options)}"
    if found := re.match(r"unrecognized arguments: --([\w.+-]+)", message):
        return f"--{found[1]} is not an option.{option_like(found[1].rstrip('+'), options)}"
    if found := re.match(r"unrecognized arguments: (\S+)", message):
        return f"{found[1]!r} is not an option. Write options as --name=value, and configs as --config FILE."
    if found := re.search(r"File does not exist: '(.+)'", message):
        return f"--config {found[1]}: no such file.{file_like(found[1])}"
    if found := re.match(r"the following arguments are required: (.+)", message):
        names = [name.split(".")[-1] for name in found[1].split(", ")]
        return f"{' and '.join(names)} not given. Name a config that sets them, such as --config nrt:quickstart"
    if message.startswith("Unexpected config:"):
        return config_without_settings(words)
    files = files_given(words)
    if (found := re.search(r"Config file loop detected: (.+?) -> ", message)) and found[1] in files.values():
        return no_settings(next(name for name in files if files[name] == found[1]), found[1])
    leaves = found_in(message)
    for name, path in files.items():  # whose content is not quoted
        named = [leaf for leaf in leaves if leaf.setting == name and leaf.text not in ("int", "float")]
        inside = any(leaf.setting.startswith(f"{name}.") for leaf in leaves)
        if (named and not inside) or (not leaves and f'"{name}"' in message):
            return no_settings(name, path)
    if not leaves:
        return one_line(message)
    deepest = [leaf for leaf in leaves if leaf.depth == max(other.depth for other in leaves)]
    order = [kind for kind, _ in LEAVES]
    leaf = min(deepest, key=lambda leaf: order.index(leaf.kind))
    if leaf.kind == "type" and (named := [other for other in deepest if re.match(r"(\w+\.)*[A-Z]", other.text)]):
        leaf = named[0]  # written as a class is, so a class was meant
    value = value_in(message, leaf)
    if leaf.kind == "choice":
        leaf.text = ", ".join(dict.fromkeys(other.text for other in deepest if other.kind == "choice"))
    leaf.kinds = types_of(leaf.owner, leaf.key) or classes_in(types.get(leaf.setting, None))
    return WORDS[leaf.kind](leaf, value)


def option(leaf: Leaf, value: str) -> str:
    """A class has no such argument."""
    name = leaf.text.split(".")[0].rstrip("+")  # a misspelled name may be followed by its settings
    if leaf.owner in BASES:
        before = f"Put the config that names it, or --{leaf.setting}=NAME, before --{leaf.setting}.{name}."
        return f"{leaf.setting} has no class yet, and so no settings. {before}"
    others = holders(name, leaf.owner)
    whose = f" {' and '.join(others)} has it." if others else nearest(name, arguments(leaf.owner))
    whose = whose or " It has no settings."
    return f"{leaf.setting}.{name}: {name!r} is not an argument of {leaf.owner}.{whose}"


def missing(leaf: Leaf, value: str) -> str:
    """A module has no such class, or does not exist."""
    path = value if "." in value and value[:1] not in "{[" else leaf.owner
    module = path.rpartition(".")[0]
    if leaf.text.startswith("module"):
        return f"{leaf.setting}: {path!r} is not a known class.{in_module(path)}"
    if module.split(".")[0] != leaf.text.split(".")[0]:
        return f"{leaf.setting}: {path!r} cannot be imported, because it imports {leaf.text!r}, which is not installed."
    return f"{leaf.setting}: {path!r} cannot be imported: no module {leaf.text!r} here.{in_module(path)}"


def kind(leaf: Leaf, value: str) -> str:
    """A class of another kind."""
    return f"{leaf.setting}: {leaf.text!r} is not of the right kind.{choices(leaf, leaf.text.rpartition('.')[2])}"


def abstract(leaf: Leaf, value: str) -> str:
    """A class that lacks methods, or a setting of a part that has no class yet."""
    setting = leaf.setting[: leaf.setting.rindex(leaf.key) + len(leaf.key)]
    given = attribute(leaf.text)
    if given not in leaf.kinds and (lacks := sorted(getattr(given, "__abstractmethods__", ()))):
        return f"{setting}: {leaf.text} is abstract. Define what it lacks: {', '.join(lacks)}.{choices(leaf, '')}"
    return f"{setting} has no class yet, and so no settings. Give its class first: --{setting}=NAME.{choices(leaf, '')}"


def choice(leaf: Leaf, value: str) -> str:
    """A value that is not among the choices."""
    return f"{leaf.setting}={value} is not one of {leaf.text}."


def wrong_type(leaf: Leaf, value: str) -> str:
    """A value of another type."""
    return f"{leaf.setting}={value!r} is not of type {leaf.text}."


def listed(leaf: Leaf, value: str) -> str:
    """One value where a list belongs."""
    return f"{leaf.setting} is a list. Add to it: --{leaf.setting}+={value}"


def several(leaf: Leaf, value: str) -> str:
    """A value, or another number of values, where several belong."""
    wanted = f"{count[0]} values" if (count := re.search(r"\d+", leaf.text)) else "several values"
    return f"{leaf.setting}={value} is not a list of {wanted}. Write --{leaf.setting}=[A, B]."


def unknown_class(leaf: Leaf, value: str) -> str:
    """A text that is not the name of a class: misspelled, or meant for a setting of the class."""
    text = value or leaf.text
    kinds = leaf.kinds
    name, inner = text.rpartition(".")[2], first_text(leaf.setting, kinds)
    if inner and (re.search(r"[/:\\]|\.(jsonl|json|csv|tsv|parquet|txt)$", text) or Path(text).exists()):
        return f"{leaf.setting} takes a class. Did you mean --{inner}={text}?"
    mine = own_classes()
    if close := get_close_matches(name, mine, n=1):
        return f"{leaf.setting}: {text!r} is not a known class. Did you mean {mine[close[0]]!r}?"
    if of_another_kind(name, kinds):
        return f"{leaf.setting}: {text!r} is not of the right kind.{nearest(name, class_names(kinds))}"
    named = f" A path or name is --{inner}=..." if inner else ""
    return f"{leaf.setting}: {text!r} is not a known class.{nearest(name, class_names(kinds))}{named}"


def first_text(setting: str, kinds: list[type]) -> str:
    """The setting inside a part that takes a name or path, as `model.policy.model`; empty if there is none."""
    known = {"model": "model.policy.model", "data": "data.train", "model.policy": "model.policy.model"}
    if setting in known:
        return known[setting]
    first = next((p for kind in kinds for p in parameters(kind) if p.annotation in (str, "str")), None)
    return f"{setting}.{first.name}" if first is not None else ""


def choices(leaf: Leaf, name: str) -> str:
    """The classes that a setting accepts, or those with a similar name."""
    return nearest(name, class_names(leaf.kinds))


def file_like(path: str) -> str:
    """Suggest a file or a config of the package for a config that does not exist."""
    given = Path(path)
    relative = given.relative_to(Path.cwd()) if given.is_relative_to(Path.cwd()) else given
    if name := same_name(relative.as_posix()):
        return f" Did you mean {name!r}, the config of this package?"
    near = [file.name for file in given.parent.glob("*.y*ml")] if given.parent.is_dir() else []
    return nearest(given.name, near) if near else ""


def one_line(message: str) -> str:
    """A message without the parts that only a parser's author reads."""
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    told = [line for line in lines if line and not NOISE.match(line)]
    return " ".join(told or [line for line in lines if line])


WORDS = {
    "option": option, "kind": kind, "missing": missing, "abstract": abstract, "choice": choice, "type": wrong_type,
    "list": listed, "class": unknown_class, "several": several,
}  # fmt: skip
