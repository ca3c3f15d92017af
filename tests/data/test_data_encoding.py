import logging

import pytest
import torch

from nrt_lightning.data import ChatTemplate, MicroBatch, PlainTemplate, PromptEncoder, collate
from nrt_lightning.errors import InputError
from nrt_lightning.structures import Markup, Row, WindowStep

QUESTION = [{"role": "user", "content": "1+1?"}]


def make_row(number, question="12345", answer="678"):
    return Row(str(number), [{"role": "user", "content": question}], answer, f"f.jsonl:{number + 1}")


def text(tokenizer, ids):
    return "".join(tokenizer.convert_ids_to_tokens(ids))


def test_prompt_and_answer_ids(char_tokenizer):
    encoded = PromptEncoder(char_tokenizer, PlainTemplate("{question}=")).encode([make_row(0)])
    assert text(char_tokenizer, encoded[0].prompt_ids) == "<s>12345="
    assert text(char_tokenizer, encoded[0].answer_ids) == "678</s>"
    assert encoded[0].row.id == "0"


def test_answers_get_one_end_token_and_no_bos_whatever_the_tokenizer_adds(make_tokenizer):
    tokenizer = make_tokenizer(appends_eos=True)
    encoded = PromptEncoder(tokenizer, PlainTemplate()).encode([make_row(0)])
    assert text(tokenizer, encoded[0].answer_ids) == "678</s>"


def test_chat_prompts(chat_tokenizer):
    encoded = PromptEncoder(chat_tokenizer, ChatTemplate()).encode([make_row(0)])
    assert text(chat_tokenizer, encoded[0].prompt_ids) == "<user>12345</s><assistant>"


def test_limits_count_special_tokens_and_cut_nothing(char_tokenizer):
    rows = [make_row(0), make_row(1, question="123456"), make_row(2, answer="6789"), make_row(3)]
    encoder = PromptEncoder(
        char_tokenizer, PlainTemplate(), max_prompt_tokens=6, max_answer_tokens=4, max_dropped_share=0.5
    )
    encoded = encoder.encode(rows)
    assert [row.id for row in encoded.rows] == ["0", "3"]
    assert [len(item.prompt_ids) for item in encoded] == [6, 6]
    assert [len(item.answer_ids) for item in encoded] == [4, 4]
    assert encoded.report.long_prompts == ["f.jsonl:2"]
    assert encoded.report.long_answers == ["f.jsonl:3"]
    assert (encoded.report.dropped, encoded.report.share) == (2, 0.5)


def test_drops_are_logged_in_one_line(char_tokenizer, caplog):
    rows = [make_row(0), make_row(1, question="123456")]
    with caplog.at_level(logging.INFO, "nrt_lightning"):
        PromptEncoder(char_tokenizer, PlainTemplate(), max_prompt_tokens=6, max_dropped_share=0.5).encode(rows, "train")
        PromptEncoder(char_tokenizer, PlainTemplate()).encode(rows, "val")
    first, second = [record.getMessage() for record in caplog.records]
    assert first.startswith("train: 1 ")
    for word in ("1 dropped (50.0%)", "1 prompts", "max_prompt_tokens=6", "0 answers", "f.jsonl:2"):
        assert word in first
    assert second.startswith("val: 2 ")
    assert "0 dropped" in second
    assert "max_prompt_tokens" not in second


def test_too_large_a_share_is_refused(char_tokenizer):
    rows = [make_row(n, question="123456" if n < 5 else "1") for n in range(20)]
    settings = {"max_prompt_tokens": 6, "max_answer_tokens": 9}
    assert len(PromptEncoder(char_tokenizer, PlainTemplate(), **settings, max_dropped_share=0.25).encode(rows)) == 15
    with pytest.raises(InputError) as error:
        PromptEncoder(char_tokenizer, PlainTemplate(), **settings, max_dropped_share=0.24).encode(rows, "train")
    for word in (
        "train: 5 of 20 rows (25.0%)",
        "max_dropped_share=0.24",
        "5 prompts",
        "max_prompt_tokens=6",
        "0 answers",
        "max_answer_tokens=9",
        "f.jsonl:1, f.jsonl:2, f.jsonl:3.",
    ):
        assert word in str(error.value)


def test_dropping_everything_is_refused_even_when_allowed(char_tokenizer):
    with pytest.raises(InputError, match="1 of 1 rows"):
        PromptEncoder(char_tokenizer, PlainTemplate(), max_prompt_tokens=2, max_dropped_share=1.0).encode([make_row(0)])
    with pytest.raises(InputError, match=r"^data: "):
        PromptEncoder(char_tokenizer, PlainTemplate()).encode([])


def test_many_rows_in_chunks(char_tokenizer):
    rows = [make_row(n, question=str(n), answer=str(-n)) for n in range(2345)]
    encoded = PromptEncoder(char_tokenizer, PlainTemplate()).encode(rows)
    assert len(encoded) == len(encoded.prompts) == len(encoded.answers) == 2345
    assert text(char_tokenizer, encoded[2344].prompt_ids) == "<s>2344"
    assert text(char_tokenizer, encoded[1000].answer_ids) == "-1000</s>"


def test_texts_without_tokens_are_refused(make_tokenizer):
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.normalizer = __import__("tokenizers").normalizers.Replace("#", "")
    with pytest.raises(InputError, match=r"f.jsonl:1: .*answer"):
        PromptEncoder(tokenizer, PlainTemplate()).encode([make_row(0, answer="##")])


def test_window_batch(char_tokenizer):
    rows = [make_row(n, question="1" * (n + 1), answer="2" * (3 - n)) for n in range(3)]
    encoded = PromptEncoder(char_tokenizer, PlainTemplate()).encode(rows)
    batch = encoded[MicroBatch([2, 0], WindowStep(1, 2))]
    assert batch.window == WindowStep(1, 2)
    assert [row.id for row in batch.rows] == ["2", "0"]
    assert text(char_tokenizer, batch.prompt_ids[0]) == "<s>111"
    assert text(char_tokenizer, batch.prompt_ids[1]) == "<pad><pad><s>1"
    assert batch.prompt_mask.tolist() == [[True] * 4, [False, False, True, True]]
    assert text(char_tokenizer, batch.answer_ids[0]) == "2</s><pad><pad>"
    assert text(char_tokenizer, batch.answer_ids[1]) == "222</s>"
    assert batch.answer_mask.tolist() == [[True, True, False, False], [True] * 4]
    assert batch.prompt_ids.dtype == torch.long
    assert batch.prompt_mask.dtype == torch.bool


def test_batches_without_answers_have_width_zero(char_tokenizer):
    encoded = PromptEncoder(char_tokenizer, PlainTemplate()).encode([make_row(0, answer=None), make_row(1)])
    assert collate([encoded[0]], pad_id=0).answer_ids.shape == (1, 0)
    assert collate([encoded[0], encoded[1]], pad_id=0).answer_mask.sum(1).tolist() == [0, 4]


def test_padding_that_is_the_end_token_is_masked(make_tokenizer):
    tokenizer = make_tokenizer(pad_token="</s>")
    rows = [make_row(0, answer="1"), make_row(1, answer="123")]
    batch = PromptEncoder(tokenizer, PlainTemplate()).encode(rows)[MicroBatch([0, 1], WindowStep())]
    assert batch.answer_mask.sum(1).tolist() == [2, 4]


def test_tokenizers_without_end_or_pad(make_tokenizer):
    with pytest.raises(InputError, match=r"tokenizer\.eos_token"):
        PromptEncoder(make_tokenizer(eos_token=None), PlainTemplate())
    with pytest.raises(InputError, match=r"tokenizer\.pad_token.*</s>"):
        PromptEncoder(make_tokenizer(pad_token=None), PlainTemplate())


@pytest.mark.parametrize(
    "setting", [{"max_prompt_tokens": 0}, {"max_answer_tokens": 1}, {"max_dropped_share": 1.5}], ids=str
)
def test_bad_settings(char_tokenizer, setting):
    [(name, value)] = setting.items()
    with pytest.raises(InputError, match=rf"{name}={value} "):
        PromptEncoder(char_tokenizer, PlainTemplate(), **setting)


def test_limits_stored_in_the_tokenizer_do_not_cut(make_tokenizer):
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=20)
    encoded = PromptEncoder(tokenizer, PlainTemplate()).encode([make_row(0)])
    assert (len(encoded[0].prompt_ids), len(encoded[0].answer_ids)) == (6, 4)


MARKUP = Markup("=>", (45, 49), marker_token=False, separator=" ", end="\n", end_ids=(60,), end_token=False)


def test_answers_hold_separator_and_end(char_tokenizer):
    template = PlainTemplate().with_markup(MARKUP)
    encoded = PromptEncoder(char_tokenizer, template).encode([Row("0", QUESTION, "12")])
    assert "".join(char_tokenizer.convert_ids_to_tokens(encoded[0].answer_ids)) == " 12\n"
    assert "".join(char_tokenizer.convert_ids_to_tokens(encoded[0].prompt_ids)) == "<s>1+1?"


def test_an_answer_that_holds_its_end_is_counted_or_refused(char_tokenizer, caplog):
    template = PlainTemplate().with_markup(MARKUP)
    rows = [Row(str(n), QUESTION, "12" if n else "1\n2", f"f.csv:{n}") for n in range(30)]
    encoded = PromptEncoder(char_tokenizer, template).encode(rows)
    assert len(encoded) == 29
    assert encoded.report.ended_answers == ["f.csv:0"]
    assert "1 answers hold what ends an answer (policy.answer_end)" in caplog.text
    assert "f.csv:0" in caplog.text
    with pytest.raises(InputError, match=r"2 of 2 rows .*2 answers hold .*policy\.answer_end.*f\.csv:0"):
        PromptEncoder(char_tokenizer, template).encode([rows[0], rows[0]])


@pytest.mark.parametrize("end", ["</s>", "\n"])
def test_white_space_around_an_answer_changes_no_token(char_tokenizer, end):
    markup = Markup("=", (char_tokenizer.convert_tokens_to_ids("="),), True, " ", end, (2,), end_token=end == "</s>")
    rows = [make_row(n, answer=answer) for n, answer in enumerate(("42", "42\n", "42 ", " 42", "\t42\r\n"))]
    for template in (PlainTemplate(), PlainTemplate().with_markup(markup)):
        encoded = PromptEncoder(char_tokenizer, template).encode(rows)
        assert len({tuple(item.answer_ids.tolist()) for item in encoded}) == 1
        assert {row.answer for row in encoded.rows} == {"42"}


def test_warnings_of_kept_rows_leave_dropped_rows_out(char_tokenizer, caplog):
    rows = [make_row(0), make_row(1, question="1</s>" * 9), make_row(2, answer="9" * 20), make_row(2, answer="9" * 20)]
    settings = {"max_prompt_tokens": 9, "max_answer_tokens": 9, "max_dropped_share": 0.9}
    encoded = PromptEncoder(char_tokenizer, PlainTemplate(), **settings).encode(rows)
    assert (len(encoded), encoded.report.control_texts) == (1, [])
    assert len(caplog.records) == 1, "of the dropped rows"
