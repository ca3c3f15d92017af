"""A tokenizer of one token a character, and a file of sums."""

import json
import string

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    "{% if hint is defined %}{{ hint }}{% endif %}"
)


def build_tokenizer(appends_eos=False, **tokens):
    vocabulary = {t: i for i, t in enumerate(["<pad>", "<s>", "</s>", *string.printable])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="~"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if appends_eos else "<s> $A", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    tokens = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"} | tokens
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, **{name: token for name, token in tokens.items() if token is not None}
    )


@pytest.fixture
def make_tokenizer():
    return build_tokenizer


@pytest.fixture(scope="session")
def char_tokenizer():
    return build_tokenizer()


@pytest.fixture
def chat_tokenizer():
    tokenizer = build_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@pytest.fixture
def sums_file(tmp_path):
    """Eleven rows with ids s0 to s10."""
    path = tmp_path / "sums.jsonl"
    rows = [{"id": f"s{n}", "question": f"{n}+1?", "answer": str(n + 1)} for n in range(11)]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


@pytest.fixture
def tokenizer_dir(tmp_path, char_tokenizer):
    char_tokenizer.save_pretrained(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")
