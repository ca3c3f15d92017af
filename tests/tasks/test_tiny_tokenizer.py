import json

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from nrt_lightning.assets import REGISTERS_BASE
from nrt_lightning.tasks.tiny_tokenizer import CHARACTERS, SPECIALS, build_tokenizer, save_tokenizer


@pytest.fixture(params=["built", "saved", "shipped"])
def tokenizer(request, tmp_path) -> PreTrainedTokenizerFast:
    if request.param == "built":
        return build_tokenizer()
    if request.param == "saved":
        save_tokenizer(tmp_path)
        return AutoTokenizer.from_pretrained(tmp_path)
    return AutoTokenizer.from_pretrained(REGISTERS_BASE)


@pytest.mark.parametrize("text", ["a4b*2c+2d+3?dc:", "d3,c0", "hm , i see .", "  two  spaces ", "a\nb", CHARACTERS])
def test_decoding_gives_the_text_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert ids[0] == tokenizer.bos_token_id
    assert len(ids) == 1 + len(text)
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.encode(text, add_special_tokens=False) == ids[1:]


def test_specials_are_set_and_few_entries_suffice(tokenizer):
    assert len(tokenizer) == len(SPECIALS) + len(CHARACTERS) <= 70
    names = (tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token)
    assert names == SPECIALS
    assert tokenizer.convert_tokens_to_ids(list(SPECIALS)) == [0, 1, 2, 3]


def test_a_foreign_character_is_unknown_not_lost(tokenizer):
    ids = tokenizer.encode("aÄb", add_special_tokens=False)
    assert len(ids) == 3
    assert ids[1] == tokenizer.unk_token_id


def test_a_marker_can_be_added(tokenizer):
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|response_start|>"]})
    ids = tokenizer.encode("b3c0<|response_start|>d3,c0", add_special_tokens=False)
    assert ids[4] == len(SPECIALS) + len(CHARACTERS)
    assert tokenizer.decode(ids) == "b3c0<|response_start|>d3,c0"


def test_the_shipped_tokenizer_is_the_one_built(tmp_path):
    save_tokenizer(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert json.loads((tmp_path / name).read_text()) == json.loads((REGISTERS_BASE / name).read_text())
