"""The shipped base model has the skills that Native Reasoning Training needs of it, and not the one it teaches."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from nrt_lightning.assets import REGISTERS_BASE
from nrt_lightning.tasks.registers import RegisterPrograms, worked_trace

ROWS = RegisterPrograms("validation", size=64).rows()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(REGISTERS_BASE)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(REGISTERS_BASE, dtype=torch.float32)


def written(model, tokenizer, texts: list[str], copies: int = 1, tokens: int = 32) -> list[str]:
    """What the model writes after each text: greedily, or `copies` samples of each."""
    batch = tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
    how = {"do_sample": True, "top_k": 0, "num_return_sequences": copies} if copies > 1 else {"do_sample": False}
    ids = model.generate(**batch, max_new_tokens=tokens, **how)
    return tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def test_it_is_tiny():
    assert sum(path.stat().st_size for path in REGISTERS_BASE.iterdir()) < 1_000_000
    assert (REGISTERS_BASE / "model.safetensors").is_file()


def test_model_and_tokenizer_agree(model, tokenizer):
    config = model.config
    assert config.vocab_size == len(tokenizer)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 1, 2)
    assert config.tie_word_embeddings
    assert config.max_position_embeddings >= 256
    assert 150_000 < model.num_parameters() < 250_000


@pytest.mark.parametrize("separator", ["|", "=>", "</s>"])
@pytest.mark.parametrize("shift", [0, 1], ids=["right", "wrong"])
def test_it_reads_registers_off_a_log_be_it_right_or_wrong(model, tokenizer, separator, shift):
    """A trace that ends in a marker started from the end token is then read too, once the marker is trained."""
    logs, answers = [], []
    for row in ROWS:
        trace = worked_trace(row.question)
        said = {name: (int(value) + shift) % 5 for name, value in zip(trace[::2], trace[1::2], strict=True)}
        asked = row.question[-3:-1]
        written_log = "".join(f"{name}{value}" for name, value in said.items())
        logs.append(f"{row.question[:-4]}#{asked} {written_log}{separator}")
        answers.append(",".join(f"{name}{said[name]}" for name in asked))
    texts = written(model, tokenizer, logs, tokens=8)
    assert sum(text == right for text, right in zip(texts, answers, strict=True)) / len(ROWS) > 0.9


def test_it_works_a_question_out_now_and_then(model, tokenizer):
    torch.manual_seed(0)
    texts = written(model, tokenizer, [row.question for row in ROWS], copies=8)
    questions = [row.question for row in ROWS for _ in range(8)]
    shortest = [text.replace(" ", "").strip(".") == worked_trace(q) for text, q in zip(texts, questions, strict=True)]
    assert 0.005 < sum(shortest) / len(shortest) < 0.2  # one of several styles, so a lower bound of useful traces


def test_it_does_not_know_the_answer_at_once(model, tokenizer):
    texts = written(model, tokenizer, [row.question for row in ROWS], tokens=8)
    assert sum(text == row.answer for text, row in zip(texts, ROWS, strict=True)) / len(ROWS) < 0.25
