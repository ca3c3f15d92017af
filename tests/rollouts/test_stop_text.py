"""A stop text is found in whatever tokens it is written."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from subwords import byte_level, sentencepiece

from nrt_lightning import TransformersEngine
from nrt_lightning.functional.continuation import continuations
from nrt_lightning.rollouts import GenerationRequest
from nrt_lightning.rollouts.stop_text import Ending, StopText

TOKENIZERS = {"byte_level": byte_level(), "sentencepiece": sentencepiece()}
MARKERS = [" =>", "=>", "\nAnswer:", "</think>\n<answer>", "→", "答え: ", "r"]


@pytest.mark.parametrize("marker", MARKERS)
@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_the_first_complete_occurrence_ends_the_row(name, marker, data):
    tokenizer = TOKENIZERS[name]
    own = st.sampled_from(tokenizer("x" + marker, add_special_tokens=False)["input_ids"])
    ids = data.draw(st.lists(own | st.integers(4, len(tokenizer) - 1), max_size=24))
    stop = StopText(tokenizer, marker)
    first = next((n for n in range(len(ids) + 1) if marker in stop.decode(ids[:n])[stop.skip :]), None)
    found = stop.find(ids)
    assert (found is None) == (first is None)
    if found is not None:
        assert found.length == first
        whole = stop.decode(ids[:first])[stop.skip :]
        assert (found.ending == Ending.BEYOND) == (whole.find(marker) + len(marker) < len(whole))
        before = stop.decode(ids[: first - found.width])[stop.skip :]
        assert 1 <= found.width <= len(marker.encode()) + 1
        if found.ending == Ending.BEYOND:  # nothing of the marker is left in front of it
            assert marker not in before
            assert whole.startswith(before.rstrip("\ufffd"))


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize(
    ("marker", "parts", "trace", "ending"),
    [
        (" =>", ["7", " =>"], "7", Ending.TEXT),
        (" =>", ["7", " ", "=", ">"], "7", Ending.TEXT),
        (" =>", ["7", " =", ">", "12"], "7", Ending.TEXT),
        ("\nAnswer:", ["so", ".\n", "Answer", ":"], "so.\n", Ending.TEXT),  # a token before the marker holds its begin
        ("Answer", ["An", "swer:"], "", Ending.BEYOND),
        ("\nAn", ["so", ".\n", "An", "swer"], "so.\n", Ending.TEXT),
        ("=", ["x", " =>"], "x", Ending.BEYOND),
    ],
)
def test_tokens_before_the_marker_are_the_trace(name, marker, parts, trace, ending):
    tokenizer = TOKENIZERS[name]
    stop = StopText(tokenizer, marker)
    ids = [token for part in parts for token in continuations("a", [part], tokenizer)[0]]
    found = stop.find(ids)
    assert found.ending == ending
    assert stop.decode(ids[: found.length - found.width])[stop.skip :] == trace


@pytest.mark.parametrize("settings", [{"check_every": 1}, {"check_every": 5}, {"max_rows": 4}, {"fixed_shapes": True}])
def test_engines_end_rows_at_the_text(subword_policy, settings):
    policy = subword_policy
    ids = torch.tensor([policy.tokenizer("Question: 6")["input_ids"]] * 3)
    plain = GenerationRequest(
        ids, torch.ones_like(ids, dtype=torch.bool), 24, policy.eos_ids, 16, seed=1, logprobs=True
    )
    endless = TransformersEngine().generate(policy, plain)
    texts = [policy.tokenizer.decode(row) for row in endless.token_ids]
    letter = max("aeinrst=>7", key=lambda c: sum(text.count(c) > 0 for text in texts))
    plain.stop_text = letter
    out = TransformersEngine(**settings).generate(policy, plain)
    stop = StopText(policy.tokenizer, letter)
    assert (out.ending > Ending.TOKEN).sum() > 4
    for row in range(len(out)):
        before = endless.token_ids[row][endless.token_mask[row]].tolist()
        found = stop.find(before)
        expected = before if found is None else before[: found.length]
        assert out.token_ids[row][out.token_mask[row]].tolist() == expected
        assert int(out.stop_width[row]) == (found.width if found else int(endless.stopped[row]))
        width = len(expected)
        torch.testing.assert_close(out.logprobs[row][:width], endless.logprobs[row][:width], atol=1e-5, rtol=0)
