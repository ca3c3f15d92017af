"""The marker and the end of answers: settings, and what tokenizer and template offer."""

import pytest
from subwords import byte_level, save_model
from tiny import BASE, make_prompts
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from nrt_lightning import ChatTemplate, InputError, LoRA, PlainTemplate, Policy, Sampling
from nrt_lightning.data.default_template import default_template, fit_together
from nrt_lightning.models.policy.fingerprint import check_same_policy, fingerprint
from nrt_lightning.models.policy.markup import add_markup
from nrt_lightning.rollouts.engine import trace_request

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def directory_with(tmp_path, *tokens, chat_template=None):
    tokenizer = byte_level()
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    tokenizer.chat_template = chat_template
    return save_model(tmp_path, tokenizer)


@pytest.mark.parametrize(
    ("tokens", "marker", "separator"),
    [
        ([], "\nAnswer:", " "),
        (["</think>"], "</think>", ""),
        (["</think>", "<|response_start|>"], "<|response_start|>", ""),
        (["[/THINK]"], "[/THINK]", ""),
    ],
)
def test_null_takes_what_the_tokenizer_has(tmp_path, tokens, marker, separator):
    policy = Policy(directory_with(tmp_path, *tokens))
    assert (policy.markup.marker, policy.markup.separator) == (marker, separator)
    assert policy.markup.marker_token == bool(tokens)
    assert not policy.marker_is_new


def test_a_tokenizer_that_cannot_write_the_text_gets_a_new_token():
    policy = Policy(BASE)
    assert policy.markup.marker == "<|response_start|>"
    assert policy.marker_is_new


@pytest.mark.parametrize(
    ("marker", "separator"),
    [(" =>", " "), ("\nAnswer:", " "), ("Answer: ", ""), ("</think>\n<answer>", ""), ("[ANSWER]", ""), ("####", " ")],
)
def test_text_markers_add_nothing_to_the_vocabulary(subword_dir, marker, separator):
    policy = Policy(subword_dir, marker, adapter=LoRA(rank=2)).load()
    markup, tokenizer = policy.markup, policy.tokenizer
    assert (markup.marker_token, markup.separator, policy.marker_is_new) == (False, separator, False)
    assert len(tokenizer) == policy.network.get_input_embeddings().weight.shape[0]
    assert tokenizer.decode([*tokenizer("a").input_ids, *markup.marker_ids]).endswith("a" + marker)
    assert not any("trainable_tokens" in name for name, _ in policy.named_parameters()), "no rows are trained"


def test_what_cannot_be_written_is_refused():
    for setting in ({"marker": "Ä"}, {"answer_end": "Ä"}):
        with pytest.raises(InputError, match=r"policy\.\w+ 'Ä' cannot be written"):
            Policy(BASE, **setting)


def test_answers_end_as_the_turns_of_the_template(tmp_path, caplog):
    policy = Policy(directory_with(tmp_path, "<|im_start|>", "<|im_end|>", chat_template=CHATML))
    assert policy.tokenizer.eos_token == "</s>"
    with caplog.at_level("INFO"):
        fit_together(ChatTemplate(), policy.tokenizer, policy)
    assert policy.markup.end == "<|im_end|>"
    assert policy.markup.end_token
    assert "'<|im_end|>'" in caplog.text
    assert "'</s>'" in caplog.text
    policy.load()
    assert set(policy.eos_ids) == {policy.tokenizer.eos_token_id, *policy.markup.end_ids}
    fit_together(PlainTemplate(), policy.tokenizer, policy)
    assert policy.markup.end == "</s>"


def test_a_setting_overrides_the_end_of_turns(tmp_path, caplog):
    directory = directory_with(tmp_path, "<|im_start|>", "<|im_end|>", chat_template=CHATML)
    policy = Policy(directory, answer_end="\n\n")
    with caplog.at_level("INFO"):
        fit_together(None, policy.tokenizer, policy)
    assert (policy.markup.end, policy.markup.end_token) == ("\n\n", False)
    assert "answer_end" in caplog.text
    assert "<|im_end|>" in caplog.text


def test_the_default_template_names_a_marker_that_is_text(tmp_path):
    chat = Policy(directory_with(tmp_path / "a", "<|im_start|>", "<|im_end|>", chat_template=CHATML))
    template = default_template(chat.tokenizer, chat.markup)
    assert "{marker}" in template.instruction
    thinking = Policy(directory_with(tmp_path / "b", "</think>", chat_template=CHATML))
    assert default_template(thinking.tokenizer, thinking.markup) == ChatTemplate()
    plain = Policy(directory_with(tmp_path / "c"))
    assert "{marker}" in default_template(plain.tokenizer, plain.markup).template


def test_a_checkpoint_knows_marker_and_end(subword_dir, tmp_path):
    saved = fingerprint(Policy(subword_dir, " =>", answer_end="\n\n"))
    without_template = Policy(subword_dir, " =>")
    check_same_policy(saved, without_template)
    assert without_template.markup.end == "\n\n", "taken from the checkpoint"
    with pytest.raises(InputError, match="markup"):
        check_same_policy(saved, Policy(subword_dir, "\nAnswer:", answer_end="\n\n"))
    with_template = Policy(subword_dir, " =>")
    with_template.follow(None)
    with pytest.raises(InputError, match="markup"):
        check_same_policy(saved, with_template)


def request_of(policy, **settings):
    prompts = make_prompts(policy, ["a b"], ["c"])
    return trace_request(policy, prompts, Sampling(group_size=2, max_trace_tokens=4, **settings), seed=0)


def test_a_marker_that_is_an_end_token_of_the_model_is_not_banned(tmp_path):
    policy = Policy(directory_with(tmp_path, "</think>", "<|done|>"), marker="</think>").load()
    marker, done = policy.markup.marker_ids[0], policy.tokenizer.get_vocab()["<|done|>"]
    policy.network.generation_config.eos_token_id = [policy.tokenizer.eos_token_id, marker, done]
    request = request_of(policy, suppress_eos=True)
    assert marker in request.stop_ids
    assert sorted(request.banned_ids) == sorted({policy.tokenizer.eos_token_id, done})


def test_end_tokens_inside_a_text_marker_are_neither_banned_nor_the_end_of_a_trace(tmp_path):
    policy = Policy(directory_with(tmp_path), marker="#?:").load()
    first, last = policy.markup.marker_ids[0], policy.markup.marker_ids[-1]
    assert first != last
    policy.network.generation_config.eos_token_id = [first, last]
    assert request_of(policy, suppress_eos=True).banned_ids == [policy.tokenizer.eos_token_id]
    stops = request_of(policy).stop_ids
    assert first not in stops, "the rest of the marker could not follow"
    assert {last, policy.tokenizer.eos_token_id} <= set(stops)


def test_an_empty_line_has_the_tokens_that_it_has_before_a_word():
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # its expression parts lines from words
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(["7\n\n"] * 9, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")
    line, lines = (tokenizer(text).input_ids for text in ("\n", "\n\n"))
    assert len(lines) == 1, "one token at the end of a text"
    assert tokenizer("7\n\nAnswer").input_ids[1:3] == line * 2
    _, markup = add_markup(tokenizer, "Answer:\n\n", None, "\n\n")
    assert markup.end_ids == tuple(line * 2)
    assert markup.marker_ids[-2:] == tuple(line * 2)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"policy": 3}', '{"policy": {"marker": 3}}', "\udcff"])
def test_a_damaged_record_of_an_export_is_named(tmp_path, text):
    """Without it the policy would get another marker than it was trained with."""
    directory = directory_with(tmp_path)
    (tmp_path / "nrt_lightning.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"nrt_lightning\.json.*Export again"):
        Policy(directory)


def test_the_marker_of_an_export_is_taken(tmp_path):
    directory = directory_with(tmp_path)
    (tmp_path / "nrt_lightning.json").write_text('{"policy": {"marker": " =>", "separator": "", "answer_end": ";"}}')
    markup = Policy(directory).markup
    assert (markup.marker, markup.separator, markup.end) == (" =>", "", ";")
