"""Tokenizer of the report bases: one token per word, and one per other character."""

from __future__ import annotations

import re
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from nrt_lightning.tasks import pretraining, reports
from nrt_lightning.tasks.tiny_tokenizer import CHARACTERS, EOS, SPECIALS, UNKNOWN, with_specials

TALK = (
    *pretraining.OPENINGS, *pretraining.SUBJECTS, *pretraining.VERBS, *pretraining.OBJECTS, *pretraining.ENDINGS,
    *reports.OPENINGS, *reports.LINKS, *reports.CLOSINGS, reports.REPORT,
)  # fmt: skip
WORDS = tuple(sorted(set(re.findall(r"(?<![{a-z])[a-z]{2,}", " ".join(TALK)))))
SYMBOLS = tuple(character for character in CHARACTERS if not character.isspace())
PIECES = re.compile(rf"{EOS}|\b(?:{'|'.join(WORDS)})\b|\S")


def build_word_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer.

    A text begins with the `<s>` token unless encoded with `add_special_tokens=False`. Spaces are dropped; decoding
    separates tokens by a space, except before a comma or a full stop.

    Example:
        >>> tokenizer = build_word_tokenizer()
        >>> ids = tokenizer.encode("ok bye, e is 2.", add_special_tokens=False)
        >>> len(ids), tokenizer.decode(ids)
        (7, 'ok bye, e is 2.')
    """
    vocabulary = {token: index for index, token in enumerate((*SPECIALS, *SYMBOLS, *WORDS))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    words = pre_tokenizers.Split(Regex(rf"\b(?:{'|'.join(WORDS)})\b|\S"), behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.Split(" ", behavior="removed")])
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return with_specials(backend)


def first_piece(text: str) -> tuple[str, str]:
    """Split a text after its first token.

    >>> first_piece("nobody knew")
    ('nobody', ' knew')
    >>> first_piece("a4b*2")
    ('a', '4b*2')
    """
    match = PIECES.match(text)
    end = match.end() if match else 1
    return text[:end], text[end:]


def save_word_tokenizer(directory: str | Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` for `AutoTokenizer.from_pretrained(directory)`.

    Args:
        directory: directory to write; created if missing.
    """
    build_word_tokenizer().save_pretrained(directory)
