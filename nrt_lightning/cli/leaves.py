"""What is wrong with a setting, found in the nested error message of a parser."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

KEY = re.compile(r"Parser key \"([\w.]+)\"")
OWNER = re.compile(r"given class_path '([^']+)'")
NESTED = re.compile(r"NestedArg\(key='([^']+)', val=(?:'(.*)'|(.*))\)$", re.MULTILINE)
# What is wrong, in the order of how much it says.
LEAVES = [
    ("option", re.compile(r"Option '([\w.+-]+)' is not accepted|unrecognized arguments: --([^ =]+)")),
    ("kind", re.compile(r"Import path ([\w.]+) does not correspond to a subclass of (\w+)")),
    ("missing", re.compile(r"module '[\w.]+' has no attribute '\w+'|No module named '([\w.]+)'")),
    ("abstract", re.compile(r"Expected an instantiatable class, but ([\w.]+) is abstract")),
    ("choice", re.compile(r"Expected a typing.Literal\[(.*?)\]")),
    ("type", re.compile(r"Expected a <class '(int|float|bool|str|dict)'>")),
    ("several", re.compile(r"Expected a (<class 'tuple'>|tuple with \d+ elements)")),
    ("list", re.compile(r"Expected a <class '(list)'>")),
    ("class", re.compile(r"(?:Expected a dot import path string|Unexpected import path format): (.*)")),
]


@dataclass
class Leaf:
    """What is wrong with a setting."""

    kind: str
    text: str  # what the pattern found
    setting: str  # the whole name of the setting, as model.aggregator
    owner: str  # import path of the class around it; empty at the top
    key: str  # name of the setting in that class
    depth: int  # settings around it
    kinds: list[type] = field(default_factory=list)  # classes that the setting accepts; empty if unknown


def found_in(message: str) -> list[Leaf]:
    """All leaves of a message, whose indentation shows which setting each belongs to."""
    lines, leaves = message.splitlines(), []
    for number, line in enumerate(lines):
        kind, found = next(((kind, f) for kind, pattern in LEAVES if (f := pattern.search(line))), ("", None))
        if found is None:
            continue
        indent, owner = len(line) + 1, ""
        keys: list[str] = []
        for above in reversed(lines[: number + 1]):
            own = len(above) - len(above.lstrip())
            if above.strip() and own < indent:
                indent = own
                if key := KEY.search(above):
                    keys.insert(0, key[1])
                if not owner and (of := OWNER.search(above)):
                    owner = of[1]
        text = next((group for group in found.groups() if group), found[0])
        leaves.append(Leaf(kind, text, ".".join(keys), owner, keys[-1] if keys else "", len(keys)))
    return leaves


def value_in(message: str, leaf: Leaf) -> str:
    """The value of the setting, and the setting's whole name from the option, if it was given as one."""
    nested = NESTED.findall(message)
    if nested and leaf.kind != "option":
        key, quoted, plain = nested[-1]
        leaf.setting = f"{leaf.setting.partition('.')[0]}.{key}" if "." not in key or leaf.depth else leaf.setting
        return str(quoted or plain)
    given = re.findall(r"Got value: (\S+)|Given value: (.+)", message)
    found = next((first or second for first, second in given if (first or second)[:1] not in "{["), "")
    return found.rstrip(".")
