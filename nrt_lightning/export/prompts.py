"""Whether a chat template makes the prompts that a run has trained on: token ids of real rows are compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from nrt_lightning.data.templates import PromptTemplate
from nrt_lightning.functional.continuation import token_ids
from nrt_lightning.structures import Prompts

KEPT = 4  # prompts of a run
HELD = "_seen_prompts"  # attribute of a module


def remember_prompts(module: Any, batch: Any) -> None:
    """Keep the first prompts of a run in its module, as plain values."""
    seen = vars(module).setdefault(HELD, [])
    if len(seen) >= KEPT or not isinstance(batch, Prompts):
        return
    for row, ids, mask in list(zip(batch.rows, batch.prompt_ids, batch.prompt_mask, strict=False))[: KEPT - len(seen)]:
        seen.append({"messages": [dict(turn) for turn in row.messages], "ids": ids[mask].tolist()})


def seen_prompts(module: Any) -> list[dict[str, Any]]:
    """Prompts that a module was trained on; empty if unknown."""
    return list(vars(module).get(HELD, []))


def templates_of(*holders: Any) -> Iterator[PromptTemplate]:
    """Templates that objects hold, or that encoders of theirs hold."""
    for holder in holders:
        for value in (holder, *getattr(holder, "__dict__", {}).values()):
            template = getattr(value, "__dict__", {}).get("template")
            if isinstance(template, PromptTemplate):
                yield template


def reproduces(jinja: str | None, tokenizer: Any, seen: Iterable[dict[str, Any]]) -> bool:
    """True if a chat template gives the ids of all these prompts."""
    if not jinja:
        return False
    for prompt in seen:
        try:
            text = tokenizer.apply_chat_template(
                prompt["messages"], chat_template=jinja, tokenize=False, add_generation_prompt=True
            )
            same = token_ids([text], tokenizer)[0] == list(prompt["ids"])
        except Exception:  # chat templates are programs and raise many kinds
            return False
        if not same:
            return False
    return True


def training_template(templates: Iterable[PromptTemplate], tokenizer: Any, seen: list[dict[str, Any]]) -> str | None:
    """The chat template of a run: the first one that gives its prompts, or just the first where none were seen."""
    texts = [jinja for template in templates if (jinja := template.jinja(tokenizer)) is not None]
    if not seen:
        return texts[0] if texts else None
    return next((text for text in texts if reproduces(text, tokenizer, seen)), None)
