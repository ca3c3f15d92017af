import json
from pathlib import Path

import pytest
import torch
from tiny import make_prompts

from nrt_lightning.rollouts import Generations, assemble, direct_answers
from nrt_lightning.rollouts.answering import after_marker
from nrt_lightning.structures import Markup, Prompts

MARKER, EOS = 9, 2
MARKUP = Markup("marker", (MARKER,), marker_token=True)


def generations(rows, stopped, logprobs=False):
    width = max(map(len, rows))
    ids = torch.tensor([r + [0] * (width - len(r)) for r in rows], dtype=torch.long)
    mask = torch.tensor([[True] * len(r) + [False] * (width - len(r)) for r in rows], dtype=torch.bool)
    return Generations(
        ids, mask, torch.tensor(stopped), -torch.arange(1.0, ids.numel() + 1).view(ids.shape) if logprobs else None
    )


def prompts_of(answers):
    width = max(map(len, answers))
    return Prompts(
        prompt_ids=torch.tensor([[0, 5], [5, 6]])[: len(answers)],
        prompt_mask=torch.tensor([[False, True], [True, True]])[: len(answers)],
        answer_ids=torch.tensor([a + [0] * (width - len(a)) for a in answers]),
        answer_mask=torch.tensor([[True] * len(a) + [False] * (width - len(a)) for a in answers]),
    )


def test_trace_marker_answer_for_every_kind_of_ending():
    prompts = prompts_of([[7, EOS], [8, 8, EOS]])
    written = generations([[3, 4, MARKER], [3, EOS], [MARKER], [4, 4, 4]], [True, True, True, False], logprobs=True)
    rollouts = assemble(prompts, written, MARKUP)
    assert rollouts.completion_ids.tolist() == [
        [3, 4, MARKER, 7, EOS, 0, 0],
        [3, MARKER, 7, EOS, 0, 0, 0],
        [MARKER, 8, 8, EOS, 0, 0, 0],
        [4, 4, 4, MARKER, 8, 8, EOS],
    ]
    segments = rollouts.segments
    assert segments.trace_mask.sum(1).tolist() == [2, 1, 0, 3]
    assert segments.marker_mask.int().argmax(1).tolist() == [2, 1, 0, 3]
    assert segments.answer_mask.sum(1).tolist() == [2, 2, 3, 3]
    assert segments.marker_emitted.tolist() == [True, False, True, False]
    assert rollouts.truncated.tolist() == [False, False, False, True]
    assert rollouts.group_ids.tolist() == [0, 0, 1, 1]
    overlap = segments.trace_mask.int() + segments.marker_mask.int() + segments.answer_mask.int()
    assert overlap.max() == 1
    # sampled tokens keep their log-probs, forced ones (row 1's marker, all answers) have none
    assert rollouts.sampling_logprobs[0].tolist() == [-1, -2, -3, 0, 0, 0, 0]
    assert rollouts.sampling_logprobs[1].tolist() == [-4, 0, 0, 0, 0, 0, 0]


def test_no_generation_at_all():
    rollouts = assemble(prompts_of([[7, EOS]]), generations([[], []], [False, False]), MARKUP)
    assert rollouts.completion_ids.tolist() == [[MARKER, 7, EOS]] * 2


def test_empty_traces_are_marker_and_answer_once_a_prompt():
    prompts = prompts_of([[7, EOS], [8, 8, EOS]])
    rollouts = assemble(prompts, generations([[3], [3, 3], [3], [3]], [False] * 4), MARKUP)
    empty = rollouts.empty_traces()
    assert empty.completion_ids.tolist() == [[MARKER, 7, EOS, 0], [MARKER, 8, 8, EOS]]
    assert empty.segments.trace_mask.sum() == 0
    assert empty.group_ids.tolist() == [0, 1]


def test_direct_answers_have_neither_trace_nor_marker():
    direct = direct_answers(prompts_of([[7, EOS], [8, 8, EOS]]), MARKUP)
    assert direct.completion_ids.tolist() == [[7, EOS, 0], [8, 8, EOS]]
    assert direct.segments.marker_mask.sum() == direct.segments.trace_mask.sum() == 0


def test_after_marker_is_left_padded_without_the_stop_token():
    prompts = prompts_of([[7, EOS], [8, EOS]])
    ids, mask = after_marker(prompts, generations([[3, EOS], [4, 4]], [True, False]), MARKUP)
    assert [row[m].tolist() for row, m in zip(ids, mask)] == [[5, 3, MARKER], [5, 6, 4, 4, MARKER]]
    assert mask[:, -1].all()
    assert (mask.int().diff(dim=1) >= 0).all(), "padding on the left only"


def test_rollouts_move_as_one_structure(policy):
    prompts = make_prompts(policy, ["a4b*2c+2d+3?dc:"], ["d3,c0"])
    prompts.rollouts = assemble(prompts, generations([[3]], [False]), MARKUP)
    moved = prompts.to(torch.device("meta"))
    assert moved.prompt_ids.device.type == moved.rollouts.segments.trace_mask.device.type == "meta"
    assert moved.rows is prompts.rows
    assert prompts.rollouts.completion_ids.device.type == "cpu"


GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "sequences.json").read_text())
# The cases whose text stops at the marker or nowhere, so that cutting by ids and cutting by text must agree.
SAME = ["marker_emitted", "empty_trace", "no_special_length_stop", "marker_then_more", "two_markers"]


def golden_assembly(case):
    """Our assembly of a golden case: the engine stops at the first marker or end token it samples."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(GOLDEN["tokenizer_json"])
    marker, eos = tokenizer.token_to_id("<|response_start|>"), tokenizer.token_to_id("</s>")
    inputs = case["inputs"]
    sampled = [i for i, m in zip(inputs["generated_ids"], inputs["generated_mask"]) if m]
    stop = next((n for n, token in enumerate(sampled) if token in (marker, eos)), None)
    written = sampled if stop is None else sampled[: stop + 1]
    answer = [*tokenizer.encode(inputs["answer_text"], add_special_tokens=False).ids, eos]
    prompts = Prompts(
        torch.tensor([inputs["prompt_ids"]]),
        torch.tensor([inputs["prompt_mask"]]).bool(),
        torch.tensor([answer]),
        torch.ones(1, len(answer), dtype=torch.bool),
    )
    return assemble(
        prompts, generations([written], [stop is not None]), Markup("", (marker,), marker_token=True)
    ), sampled


@pytest.mark.parametrize("case", [c for c in GOLDEN["cases"] if c["name"] in SAME], ids=lambda c: c["name"])
def test_golden_sequences(case):
    outputs = case["outputs"]
    if outputs["retokenised_differently"]:
        pytest.skip("the official code re-encodes the trace to other ids here; ours keeps the sampled ones")
    rollouts, _ = golden_assembly(case)
    assert rollouts.completion_ids[0].tolist() == outputs["token_ids"]
    for name in ("trace_mask", "marker_mask", "answer_mask"):
        assert getattr(rollouts.segments, name)[0].int().tolist() == outputs[name], name
    assert rollouts.segments.marker_emitted.item() == outputs["marker_matched"]
    empty = rollouts.empty_traces()
    assert empty.completion_ids[0].tolist() == outputs["baseline_token_ids"]


def test_sampled_ids_are_kept_where_the_official_code_changes_them():
    cases = [c for c in GOLDEN["cases"] if c["outputs"]["retokenised_differently"]]
    assert cases
    for case in cases:
        rollouts, sampled = golden_assembly(case)
        trace = rollouts.completion_ids[0][rollouts.segments.trace_mask[0]].tolist()
        assert trace == sampled[: len(trace)]


def test_overlong_traces_are_neither_shortened_nor_called_finished():
    """The authors' code truncates the trace and keeps `marker_matched`; ours keeps every sampled token."""
    case = next(c for c in GOLDEN["cases"] if c["name"] == "overflow")
    rollouts, sampled = golden_assembly(case)
    assert rollouts.segments.trace_mask.sum() > sum(case["outputs"]["trace_mask"])
    assert rollouts.truncated.item() == (not rollouts.segments.marker_emitted.item())
    assert rollouts.completion_ids[0].tolist()[: int(rollouts.segments.trace_mask.sum())] == sampled[:-1]
