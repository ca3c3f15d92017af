"""What is known of the model that a policy was trained from: its name on the hub and its license."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from nrt_lightning.export.hub_files import file_on_hub

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy

CARD = "README.md"
FRONT_MATTER = re.compile(r"\A\ufeff?\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|\Z)", re.DOTALL)
CACHED = re.compile(r"/models--([^/]+)/snapshots/")  # in the hub's cache


def base_facts(policy: Policy) -> dict[str, Any]:
    """Entries of a model card about the base: `base_model`, `license`, `license_name`, `license_link`.

    They are those of the base's own card or configuration. What they do not say is left out. `base_model` is an id of
    the hub: that of the base, or for a directory, that of the base that its card names.

    Args:
        policy: trained from the base.
    """
    if policy.settings.get("weights") == "random" or (policy.live and not policy.network.name_or_path):
        return {}
    directory = Path(policy.source)
    if directory.is_dir():
        cached = CACHED.search(directory.absolute().as_posix() + "/")
        card = front_matter(directory / CARD)
        base = cached[1].replace("--", "/") if cached else card.get("base_model")
        base = base[0] if isinstance(base, list) and len(base) == 1 else base
    else:
        path = file_on_hub(policy.source, CARD, policy.settings.get("revision"))
        base, card = policy.source, {} if path is None else front_matter(path)
    found = {"base_model": base} if is_hub_id(base) else {}
    license_name = card.get("license") or getattr(policy.config, "license", None)
    if not isinstance(license_name, str | list):
        return found
    found["license"] = license_name
    if isinstance(card.get("license_name"), str):
        found["license_name"] = card["license_name"]
    link = card.get("license_link")
    if isinstance(link, str) and link.startswith(("https://", "http://")):
        found["license_link"] = link
    elif isinstance(link, str) and not directory.is_dir():  # a file of the base's repository
        found["license_link"] = f"https://huggingface.co/{base}/blob/main/{link}"
    return found


def is_hub_id(name: Any) -> bool:
    """True for a text that can be the id of a model on the hub.

    >>> is_hub_id("Qwen/Qwen3-0.6B"), is_hub_id("gpt2"), is_hub_id("./base"), is_hub_id("embedded:registers-base")
    (True, True, False, False)
    """
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return isinstance(name, str)


def front_matter(card: Path) -> dict[str, Any]:
    """The YAML at the beginning of a model card; empty if there is none."""
    try:
        found = FRONT_MATTER.match(card.read_text(encoding="utf-8"))
        entries = yaml.safe_load(found[1]) if found else None
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return entries if isinstance(entries, dict) else {}
