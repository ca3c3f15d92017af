"""Texts are tokenized as they follow another text."""

import pytest
from subwords import byte_level, sentencepiece

from nrt_lightning.functional.continuation import continuations

TOKENIZERS = {"byte_level": byte_level(), "sentencepiece": sentencepiece()}
ANSWERS = [" 12", "12", "=5", "</answer>", " größer als", "答え", "\n", "", "> <"]


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("before", [" =>", "\nAnswer:", "</think>\n<answer>", "<s>", "a", "=", "7"])
def test_ids_have_the_text_and_are_the_usual_ones(name, before):
    tokenizer = TOKENIZERS[name]
    found = continuations(before, ANSWERS, tokenizer)
    ids = tokenizer(before, add_special_tokens=False)["input_ids"]
    for text, own in zip(ANSWERS, found, strict=True):
        whole = tokenizer(before + text, add_special_tokens=False)["input_ids"]
        if whole[: len(ids)] == ids:
            assert ids + own == whole
        for start in (ids, tokenizer("x", add_special_tokens=False)["input_ids"]):
            assert tokenizer.decode(start + own) == tokenizer.decode(start) + text


def test_a_token_across_the_boundary_is_not_used():
    tokenizer = TOKENIZERS["byte_level"]
    [ids] = continuations(" =", [">"], tokenizer)
    assert tokenizer.convert_ids_to_tokens(tokenizer(" =>").input_ids) == ["Ġ=>"]
    assert tokenizer.convert_ids_to_tokens(ids) == [">"]
