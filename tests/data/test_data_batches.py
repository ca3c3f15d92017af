import logging

import numpy as np
import pytest
from torch.utils.data import DataLoader, default_collate

from nrt_lightning.data import PlainTemplate, TextBatchEncoder, TextBatches
from nrt_lightning.data.batches import rows_of
from nrt_lightning.errors import InputError

PLAIN = PlainTemplate()


def answers(*values, collate=default_collate):
    batch = collate([{"question": "q", "answer": value} for value in values])
    return [row.answer for row in rows_of(batch)]


def test_numbers_become_their_text():
    assert answers(7, -1) == ["7", "-1"]
    assert answers(3.0, 0.1) == ["3.0", "0.1"]
    assert answers("a", "7") == ["a", "7"]
    assert [r.answer for r in rows_of({"question": ["q"] * 3, "answer": [np.int64(3), np.float32(0.1), 2.5]})] == [
        "3", "0.1", "2.5",
    ]  # fmt: skip


@pytest.mark.parametrize("value", [True, float("nan"), float("inf")])
def test_other_values_are_refused_with_the_id(value):
    batch = default_collate([{"question": "q", "answer": value, "id": "q17"}])
    with pytest.raises(InputError, match=r"row q17.*answer"):
        list(rows_of(batch))


@pytest.mark.parametrize("key", ["id", "ids"])
def test_ids_of_the_batch_are_the_rows_ids(key):
    batch = next(iter(DataLoader([{"question": "q", "answer": "a", key: n} for n in (5, 7)], batch_size=2)))
    assert [row.id for row in rows_of(batch)] == ["5", "7"]


def test_rows_without_ids_are_numbered_over_batches(char_tokenizer):
    encoder = TextBatchEncoder(TextBatches(PLAIN), char_tokenizer)
    batches = [encoder.encode({"question": ["1?", "2?"], "answer": ["1", "2"]}) for _ in range(2)]
    assert [row.id for batch in batches for row in batch.rows] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ({"qestion": ["q"]}, r"'question'.*'qestion'"),
        ({"question": ["q"]}, r"'answer'"),
        ({"question": "q", "answer": ["a"]}, r"'q'.*'question'.*list"),
        ({"question": [3], "answer": ["a"]}, r"row 0.*3.*text"),
        ({"question": ["q", "r"], "answer": ["a"]}, r"2 of 'question'.*1 of 'answer'"),
        ({"question": ["q"], "answer": [None]}, r"row 0.*nothing"),
    ],
)
def test_wrong_batches_are_refused(batch, words):
    with pytest.raises(InputError, match=words):
        list(rows_of(batch))


def test_answers_are_not_needed_for_prediction():
    assert [row.answer for row in rows_of({"question": ["q"]}, require_answers=False)] == [None]
    assert [row.answer for row in rows_of({"question": ["q"], "answer": [""]}, require_answers=False)] == [None]


def test_long_rows_are_counted_and_named_by_id(char_tokenizer, caplog):
    settings = TextBatches(PLAIN, max_prompt_tokens=5, max_answer_tokens=3)
    encoder = TextBatchEncoder(settings, char_tokenizer)
    batch = {"question": ["1?", "12345?", "2?"], "answer": ["1", "2", "345"], "id": ["a", "long-q", "long-a"]}
    assert [row.id for row in encoder.encode(batch).rows] == ["a"]
    assert (encoder.dropped, encoder.seen) == (2, 3)
    for word in ("row long-q", "row long-a", "max_prompt_tokens=5", "max_answer_tokens=3", "2 of 3 rows"):
        assert word in caplog.text
    caplog.clear()
    encoder.encode(batch)
    assert caplog.text == "", "named once"
    assert encoder.encode({"question": ["123456?"], "answer": ["1"]}) is None
    assert "5 of 7 rows" in caplog.text


def test_the_template_and_first_prompt_are_shown_once(char_tokenizer, chat_tokenizer, caplog):
    batch = {"question": ["1?"], "answer": ["1"]}
    shown = []
    encoder = TextBatchEncoder(TextBatches(), chat_tokenizer, shown.append)
    for _ in range(2):
        encoder.encode(batch)
    assert len(shown) == 1
    assert "| <user>1?</s><assistant>" in shown[0]
    with caplog.at_level(logging.INFO):
        TextBatchEncoder(TextBatches(), char_tokenizer).encode(batch)
    assert "step by step" in caplog.text
