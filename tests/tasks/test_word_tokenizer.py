import json

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from nrt_lightning.assets import REPORTS_BASE
from nrt_lightning.tasks.tiny_tokenizer import SPECIALS
from nrt_lightning.tasks.word_tokenizer import SYMBOLS, WORDS, build_word_tokenizer, first_piece, save_word_tokenizer


@pytest.fixture(params=["built", "saved", "shipped"])
def tokenizer(request, tmp_path) -> PreTrainedTokenizerFast:
    if request.param == "built":
        return build_word_tokenizer()
    if request.param == "saved":
        save_word_tokenizer(tmp_path)
        return AutoTokenizer.from_pretrained(tmp_path)
    return AutoTokenizer.from_pretrained(REPORTS_BASE)


@pytest.mark.parametrize(
    ("text", "count"),
    [("good question, let me see. e is 2.", 11), ("a4b*2c+2?ebc:", 13), ("  ok   bye.", 3), ("b3c0d1e", 7), ("", 0)],
)
def test_words_are_one_token_and_other_characters_one_each(tokenizer, text, count):
    ids = tokenizer.encode(text)
    assert ids[0] == tokenizer.bos_token_id
    assert len(ids) == 1 + count
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.encode(text, add_special_tokens=False) == ids[1:]


def test_decoding_gives_words_with_one_space_between(tokenizer):
    text = "nice question, let me see. e is 2, so it is b 3, sum of c is 0. maybe ask me later. ok bye."
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text


def test_a_word_is_found_only_whole(tokenizer):
    assert len(tokenizer.encode("sum", add_special_tokens=False)) == 1
    assert len(tokenizer.encode("sums", add_special_tokens=False)) == 4
    assert len(tokenizer.encode("efab", add_special_tokens=False)) == 4


def test_specials_and_size(tokenizer):
    names = (tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token)
    assert names == SPECIALS
    assert len(tokenizer) == len(SPECIALS) + len(SYMBOLS) + len(WORDS)
    assert tokenizer.encode("Ä", add_special_tokens=False) == [tokenizer.unk_token_id]


@pytest.mark.parametrize("text", ["nobody knew it.", "a4b*2", "</s>|", "ok"])
def test_a_text_is_cut_after_its_first_token(tokenizer, text):
    first, rest = first_piece(text)
    assert first + rest == text
    assert len(tokenizer.encode(first, add_special_tokens=False)) == 1


def test_the_shipped_tokenizer_is_the_one_built(tmp_path):
    save_word_tokenizer(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert json.loads((tmp_path / name).read_text()) == json.loads((REPORTS_BASE / name).read_text())
