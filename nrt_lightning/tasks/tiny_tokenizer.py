"""Tokenizer of the register and pointer bases: one token per character."""

from __future__ import annotations

import string
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
SPECIALS = (PAD, BOS, EOS, UNKNOWN)
CHARACTERS = string.digits + string.ascii_lowercase + "+*-=~,.:;?!#@|/<>()'\" \n"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer.

    A text begins with the `<s>` token unless encoded with `add_special_tokens=False`; decoding returns exactly the
    encoded text. Characters outside `CHARACTERS` become `<unk>`.

    Example:
        >>> tokenizer = build_tokenizer()
        >>> ids = tokenizer.encode("a4b*2 ?")
        >>> tokenizer.decode(ids), tokenizer.decode(ids, skip_special_tokens=True)
        ('<s>a4b*2 ?', 'a4b*2 ?')
    """
    vocabulary = {token: index for index, token in enumerate((*SPECIALS, *CHARACTERS))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()  # joins characters without spaces
    return with_specials(backend)


def with_specials(backend: Tokenizer) -> PreTrainedTokenizerFast:
    """Wrap a tokenizer for transformers: texts begin with the `<s>` token, batches are padded on the left."""
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, backend.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",  # required by generation
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )


def save_tokenizer(directory: str | Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` for `AutoTokenizer.from_pretrained(directory)`.

    Args:
        directory: directory to write; created if missing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     save_tokenizer(directory)
        ...     sorted(path.name for path in Path(directory).iterdir())
        ['tokenizer.json', 'tokenizer_config.json']
    """
    build_tokenizer().save_pretrained(directory)
