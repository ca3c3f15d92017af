"""Which marker ends a trace, and what ends an answer: settings, or what tokenizer and template offer."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from pathlib import Path
from typing import Any

import torch
from transformers import AddedToken, PreTrainedModel, PreTrainedTokenizerBase

from nrt_lightning.errors import InputError
from nrt_lightning.functional.continuation import continuations, token_ids
from nrt_lightning.structures.markup import Markup

log = logging.getLogger(__name__)

RECORD = "nrt_lightning.json"  # of an export
NEW_TOKEN = "<|response_start|>"  # the paper's kind of marker
ENDS_OF_THOUGHT = ("</think>", "</thinking>", "</thought>", "[/THINK]", "<|END_THINKING|>", "<|end_of_thought|>",
                   "</seed:think>", "<|/think|>")  # fmt: skip
TEXT = "\nAnswer:"  # the default templates name it
NEW = re.compile(r"<\|[^<>|\s]+\|>")
TAG = re.compile(r"(<[^<>\s][^<>]*>|\[[^\[\]\s][^\[\]]*\])$")


def find_marker(tokenizer: PreTrainedTokenizerBase) -> str:
    """The marker for `policy.marker: null`.

    It is a marker token that the tokenizer has, else its end of thought, else a text. A tokenizer that cannot write
    the text gets a new token.
    """
    known = tokenizer.get_vocab()
    for token in (NEW_TOKEN, *ENDS_OF_THOUGHT):
        if token in known and known[token] in tokenizer.added_tokens_decoder:
            return token
    [ids] = token_ids([TEXT], tokenizer)
    return TEXT if written(tokenizer, ids).strip() == TEXT.strip() and tokenizer.unk_token_id not in ids else NEW_TOKEN


def add_marker(tokenizer: PreTrainedTokenizerBase, marker: str) -> bool:
    """Add a marker like `<|name|>` that the tokenizer cannot write as one token; True if it was added.

    Raises:
        InputError: the marker is empty or a token with another meaning.
    """
    if not marker.strip():
        raise InputError(f"policy.marker {marker!r} is empty. Give a text, for instance '\\nAnswer:'.")
    for role in ("bos_token", "eos_token", "pad_token", "unk_token"):
        if getattr(tokenizer, role) == marker:
            raise InputError(
                f"policy.marker {marker!r} is the tokenizer's {role}, so a trace would end at every such token. "
                f"Choose another text, for instance '{NEW_TOKEN}'."
            )
    known = tokenizer.get_vocab().get(marker)
    if known is not None or not NEW.fullmatch(marker):
        return False
    tokenizer.add_tokens([AddedToken(marker, special=True, normalized=False)])
    return True


def add_markup(
    tokenizer: PreTrainedTokenizerBase,
    marker: str | None,
    separator: str | None,
    answer_end: str | None,
    source: str = "",
) -> tuple[bool, Markup]:
    """The markup of a policy; True with it if the marker was added to the tokenizer.

    Args:
        tokenizer: of the policy.
        marker: its text; None for that of an export, or `find_marker`.
        separator: text between marker and answer; None for one space, or nothing after a token, a tag or white space.
        answer_end: text or token that ends an answer; None for the tokenizer's end token.
        source: directory of the model, perhaps an export.

    Raises:
        InputError: a text that the tokenizer cannot write, or a marker with another meaning.
    """
    if marker is None and (exported := exported_markup(source)):
        marker = exported["marker"]
        separator = exported.get("separator") if separator is None else separator
        answer_end = exported.get("answer_end") if answer_end is None else answer_end
    marker = find_marker(tokenizer) if marker is None else marker
    is_new, marker_id = add_marker(tokenizer, marker), own_token(tokenizer, marker)
    if separator is None:
        separator = "" if marker_id is not None or marker[-1].isspace() or TAG.search(marker) else " "
    after = f"{separator}0"
    marker_ids = (marker_id,) if marker_id is not None else text_ids(tokenizer, marker, "policy.marker", after=after)
    without_end = Markup(marker, marker_ids, marker_id is not None, separator)
    return is_new, with_turn_end(without_end, tokenizer, None, answer_end)


def with_turn_end(
    markup: Markup, tokenizer: PreTrainedTokenizerBase, turn_end: str | None, answer_end: str | None
) -> Markup:
    """The markup with the end of answers.

    Args:
        markup: with another end or none.
        tokenizer: of the policy.
        turn_end: what ends a turn in the data's template; None for the tokenizer's end token.
        answer_end: the setting, which overrides it; None for none.

    Raises:
        InputError: a text that the tokenizer cannot write.
    """
    kept = markup.end if not markup.end_token else tokenizer.eos_token  # an export's
    found = turn_end or str(kept)
    if answer_end is not None and turn_end is not None and answer_end != turn_end:
        log.info("policy.answer_end %r ends answers; turns of the template end with %r.", answer_end, turn_end)
    elif answer_end is None and found not in (tokenizer.eos_token, markup.end):
        log.info("turns of the template end with %r, and so do answers; eos is %r.", found, tokenizer.eos_token)
    end = found if answer_end is None else answer_end
    end_id = own_token(tokenizer, end)
    end_ids = (end_id,) if end_id is not None else text_ids(tokenizer, end, "policy.answer_end", before="0", after="A")
    return dataclasses.replace(markup, end=end, end_ids=end_ids, end_token=end_id is not None)


def exported_markup(source: str) -> dict[str, str]:
    """The texts that an export keeps of its policy (`nrt_lightning.json`); empty for other models.

    Raises:
        InputError: the file is damaged.
    """
    path = Path(source, RECORD)
    if not path.is_file():
        return {}
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))["policy"]
        texts: dict[str, str] = {name: kept[name] for name in kept}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({type(error).__name__}: {error}). Export again.") from error
    if not all(isinstance(text, str) for text in texts.values()):
        raise InputError(f"{path}: 'policy' holds something else than texts. Export again.")
    return texts if texts.get("marker") else {}


def own_token(tokenizer: PreTrainedTokenizerBase, text: str) -> int | None:
    """The id of a text that is a token of its own, which ordinary text does not contain; None otherwise."""
    known = tokenizer.get_vocab().get(text)
    special = known in tokenizer.added_tokens_decoder or text in tokenizer.all_special_tokens
    return known if known is not None and special else None


def text_ids(
    tokenizer: PreTrainedTokenizerBase, text: str, name: str, *, before: str = "a", after: str
) -> tuple[int, ...]:
    """The usual tokens of a text between others.

    Many tokenizers write an empty line as one token at the end of a text, and as two before a word.

    Args:
        tokenizer: of the policy.
        text: the text.
        name: of the setting.
        before: text before it.
        after: text after it; it does not count where a token reaches across the boundary.

    Raises:
        InputError: the tokenizer cannot write the text.
    """
    [ids, longer] = continuations(before, [text, text + after], tokenizer)
    if tokenizer.unk_token_id in ids or not text.strip(" ") or text.strip() not in written(tokenizer, ids):
        raise InputError(
            f"{name} {text!r} cannot be written with the tokens of {tokenizer.name_or_path!r}. Give another text, or "
            f"a new token such as '{NEW_TOKEN}'."
        )
    whole = written(tokenizer, ids)
    inside = (longer[:count] for count in range(1, len(longer)))
    return tuple(next((first for first in inside if written(tokenizer, first) == whole), ids))


def written(tokenizer: Any, ids: list[int]) -> str:
    """The text of ids, special tokens included."""
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


@torch.no_grad()
def initialize_marker(model: PreTrainedModel, marker_id: int, eos_id: int) -> None:
    """Initialize the marker's rows of the input and output embeddings with the end token's.

    `grow_vocabulary` has made room for it. The model writes the end token when a text is complete, so a copy
    of its row is soon emitted; the mean of all rows never was (docs/how_it_works.md).
    """
    for embedding in (model.get_input_embeddings(), model.get_output_embeddings()):
        for rows in embedding.parameters(recurse=False):  # weight and possibly bias; tied weights are copied twice
            rows[marker_id] = rows[eos_id]
