"""Command lines of recipes for models of the hub, with a tiny model of the same class in the place of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch.strategies import FSDPStrategy
from tiny import save_tiny
from transformers import AutoTokenizer

FAMILIES = {"meta-llama": "llama", "mistralai": "mistral", "Qwen": "qwen3", "runs": "llama"}


class FSDPAnywhere(FSDPStrategy):
    """The strategy itself is refused where there is no GPU, by its type alone."""


def at_home(args: list[str], directory: Path) -> list[str]:
    """The options that run these configs here: a tiny model where they name one of the hub, and a CPU."""
    texts = [Path(arg).read_text() for arg in args if arg.endswith(".yaml")]
    more = []
    if any("accelerator: gpu" in text for text in texts) and not torch.cuda.is_available():
        more.append("--trainer.accelerator=cpu")
        if any("FSDPStrategy" in text for text in texts):
            more.append('--trainer.strategy={"class_path": "cli.recipes.FSDPAnywhere"}')
    settings: dict[str, Any] = {}
    for text in texts:
        policy = yaml.safe_load(text).get("model", {}).get("init_args", {}).get("policy", {})
        settings |= policy.get("init_args", {})
    owner = str(settings.get("model", "")).split("/")[0]
    if owner in FAMILIES:
        more.append(f"--model.policy.model={tiny(directory, FAMILIES[owner], settings.get('pad_token'))}")
    return more


def tiny(directory: Path, family: str, pad_token: str | None) -> str:
    """A tiny model whose tokenizer has this token, too."""
    path = save_tiny(directory / family, family)
    if pad_token is not None:
        tokenizer = AutoTokenizer.from_pretrained(path)
        tokenizer.add_tokens([pad_token], special_tokens=True)
        tokenizer.save_pretrained(path)
    return path
