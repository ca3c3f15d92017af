"""Names that a user may have meant: settings, classes, modules and files."""

from __future__ import annotations

import importlib
import inspect
import re
import types
from collections.abc import Iterator
from dataclasses import is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_origin

from jsonargparse._parameter_resolvers import get_signature_parameters

import nrt_lightning
from nrt_lightning.errors import nearest

LIVE = "tokenizer"  # an argument of Policy that is no option
OWN = {"model": ["NRTModule", "SFTModule"], "data": ["QADataModule"]}  # whose settings are suggested
COMMON = ["model.optimizer.lr", "model.optimizer.weight_decay", "model.optimizer.betas", "model.schedule.warmup"]


def attribute(class_path: str) -> Any:
    """The object at an import path; None if there is none."""
    module, _, name = class_path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except Exception:  # a module of the user may raise anything
        return None


def arguments(class_path: str) -> list[str]:
    """Names of the options of a class, given its import path.

    >>> arguments("nrt_lightning.LoRA")[:2]
    ['rank', 'alpha']
    """
    return [parameter.name for parameter in parameters(attribute(class_path)) if parameter.name != LIVE]


def parameters(kind: Any) -> list[Any]:
    """The parameters of a class, with their types."""
    try:
        return get_signature_parameters(kind) if inspect.isclass(kind) else []
    except Exception:  # a class of the user may be unreadable
        return []


def classes_in(annotation: Any) -> list[type]:
    """The classes in a type, None and plain values left out.

    >>> from decimal import Decimal
    >>> classes_in(list[Decimal] | str | None)
    [<class 'decimal.Decimal'>]
    """
    if inspect.isclass(annotation) and not isinstance(annotation, types.GenericAlias):
        return [] if annotation.__module__ == "builtins" else [annotation]
    inner = get_args(annotation)
    if get_origin(annotation) is not None and isinstance(inner[0] if inner else None, list):
        return classes_in(inner[-1])  # a callable that returns it
    return [found for part in inner for found in classes_in(part)]


def types_of(owner: str, key: str) -> list[type]:
    """The classes that a setting accepts.

    Args:
        owner: import path of the class that has the setting; empty for an option of the command.
        key: name of the setting; may begin with that of its part, as `trainer.callbacks`.

    >>> [kind.__name__ for kind in types_of("nrt_lightning.NRTModule", "aggregator")]
    ['RewardAggregator']
    """
    if not owner:
        part, _, key = key.rpartition(".")
        top = {"model": "lightning.pytorch.LightningModule", "data": "lightning.pytorch.LightningDataModule"}
        if not part:
            return [attribute(top[key])] if key in top else []
        owner = {"trainer": "lightning.pytorch.Trainer"}.get(part, "")
    found = next((parameter for parameter in parameters(attribute(owner)) if parameter.name == key), None)
    return [] if found is None else classes_in(found.annotation)


def class_names(kinds: list[type]) -> list[str]:
    """Names of the public classes that are of one of these kinds; all of them if there is none.

    >>> class_names([nrt_lightning.Schedule])
    ['ConstantSchedule', 'CosineSchedule', 'LinearSchedule']
    """
    public = [getattr(nrt_lightning, name) for name in nrt_lightning.__all__]
    own = {kind.__name__ for kind in public if inspect.isclass(kind) and not inspect.isabstract(kind)}
    if not kinds:
        return sorted(own)
    return sorted({kind.__name__ for kind in subclasses(kinds) if public_name(kind) and not inspect.isabstract(kind)})


def of_another_kind(name: str, kinds: list[type]) -> bool:
    """True for the name of a public class that is of none of these kinds.

    >>> of_another_kind("ExactMatch", [nrt_lightning.Schedule]), of_another_kind("ExactMtch", [nrt_lightning.Schedule])
    (True, False)
    """
    return bool(kinds) and name in nrt_lightning.__all__ and name not in class_names(kinds)


def public_name(kind: type) -> bool:
    """True for a class of this package, Lightning or torch, or of a user, that is not private."""
    return not kind.__name__.startswith("_") and not any(p.startswith("_") for p in kind.__module__.split("."))


def subclasses(kinds: list[type]) -> set[type]:
    """All imported subclasses, and the classes themselves."""
    found, waiting = set(kinds), list(kinds)
    while waiting:
        new: set[type] = set(type.__subclasses__(waiting.pop())) - found
        found |= new
        waiting += new
    return found


def holders(name: str, owner: str) -> list[str]:
    """Public classes of the same kind as a class that have a setting which it lacks.

    >>> holders("sampling", "nrt_lightning.SFTModule")
    ['NRTModule']
    """
    kind = attribute(owner)
    bases = [base for base in getattr(kind, "__mro__", ())[1:] if base.__module__.startswith("nrt_lightning.")]
    known = [getattr(nrt_lightning, other) for other in nrt_lightning.__all__]
    same = [other for other in known if inspect.isclass(other) and bases and issubclass(other, bases[-1])]
    return sorted({other.__name__ for other in same if name in [p.name for p in parameters(other)]} - {owner})


def in_module(class_path: str) -> str:
    """Suggest a class for an import path that does not exist, of the module or of one in the working directory."""
    module, _, name = class_path.rpartition(".")
    try:
        loaded = importlib.import_module(module)
    except ImportError:
        root = module.partition(".")[0]
        beside = [path.stem for path in Path().glob("*.py")] + [
            path.parent.name for path in Path().glob("*/__init__.py")
        ]
        known = [*beside, "nrt_lightning", "torch", "lightning"]
        if root in known:  # a part of the module does not exist
            return nearest(name, get_close_matches(name, nrt_lightning.__all__ if root == "nrt_lightning" else []))
        close = get_close_matches(root, known, n=1)
        return f" Did you mean {class_path.replace(root, close[0], 1)!r}?" if close else ""
    names = [n for n, value in vars(loaded).items() if inspect.isclass(value) and not n.startswith("_")]
    names = list(nrt_lightning.__all__) if loaded is nrt_lightning else names
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    if loaded is nrt_lightning:  # whose classes need no module
        return nearest(name, close)
    return nearest(class_path, [f"{module}.{other}" for other in close]) if close else ""


def own_classes() -> dict[str, str]:
    """Import paths of the classes in the Python files of the working directory, by name."""
    found = {}
    for path in sorted(Path().glob("*.py")):
        for name in re.findall(r"^class (\w+)", path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE):
            found[name] = f"{path.stem}.{name}"
    return found


def settings() -> Iterator[str]:
    """Names of the settings of modules and data, with those of their parts that have a fixed class."""
    for part, kinds in OWN.items():
        for kind in kinds:
            for parameter in parameters(getattr(nrt_lightning, kind)):
                yield f"{part}.{parameter.name}"
                for inner in classes_in(parameter.annotation):
                    if inner.__module__.startswith("nrt_lightning.") and (
                        is_dataclass(inner) or inner.__name__ == "Policy"
                    ):
                        yield from (f"{part}.{parameter.name}.{p.name}" for p in parameters(inner) if p.name != LIVE)
    yield from COMMON


def option_like(name: str, options: list[str]) -> str:
    """Suggest an option for one that does not exist: with the same end, or with a similar name.

    >>> option_like("optimizer.lr", ["trainer.max_steps"]), option_like("trainer.max_stepz", ["trainer.max_steps"])
    (" Did you mean 'model.optimizer.lr'?", " Did you mean 'trainer.max_steps'?")
    """
    known = sorted({option for option in [*options, *settings()] if not option.endswith(".help")})
    same = [option for option in known if option.endswith(f".{name}")]
    if not same and "." in name:
        head, _, rest = name.partition(".")
        same = [f"{option}.{rest}" for option in known if option.endswith(f".{head}")]
        heads = {option.partition(".")[0] for option in known}
        if not same and head not in heads:
            same = [f"{other}.{rest}" for other in get_close_matches(head, heads, n=1)]
    close = same or get_close_matches(name, known, n=2, cutoff=0.7)
    if not close:
        leaves = {option.rpartition(".")[2]: option for option in known}
        close = [leaves[leaf] for leaf in get_close_matches(name.rpartition(".")[2], leaves, n=2, cutoff=0.75)]
    close = sorted(close, key=lambda option: option.count("."))[:3]
    return " Did you mean " + " or ".join(map(repr, close)) + "?" if close else " --help lists the options."
