"""A conversation writes what the policy writes, part by part, and says what was cut or forced."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field

import pytest
import torch
from taught import taught_policy
from tiny import BASE, make_prompts, save_tiny

from nrt_lightning import AdapterFiles, InputError, LoRA, PlainTemplate, Policy, RegisterPrograms, export_policy
from nrt_lightning.export import RunRecord
from nrt_lightning.rollouts import TransformersEngine, write_answers
from nrt_lightning.structures import Sampling
from nrt_lightning.tools.chat import Answerer, ChatSettings, Display, read_speaker, speaker_of
from nrt_lightning.tools.chat.display import Growing, printable

QUESTIONS = [row.question for row in RegisterPrograms("test", 6).rows()]
LIMITS = {"max_trace_tokens": 32, "max_answer_tokens": 16}


@dataclass
class Terminal(io.StringIO):
    """A stream that records every write."""

    tty: bool = False
    writes: list[str] = field(default_factory=list)

    def isatty(self) -> bool:
        return self.tty

    def write(self, text: str) -> int:
        self.writes.append(text)
        return len(text)

    @property
    def text(self) -> str:
        return "".join(self.writes)


def record(policy: Policy, **settings) -> RunRecord:
    """Of a run with another template than the default."""
    jinja = PlainTemplate("{question}").jinja(policy.tokenizer)
    return RunRecord(**{"chat_template": jinja, "limits": LIMITS} | settings)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> str:
    policy = taught_policy()
    return str(export_policy(policy, tmp_path_factory.mktemp("chat") / "m", record=record(policy)))


def answerer(model: str, tty: bool = False, **settings) -> tuple[Answerer, Terminal]:
    out = Terminal(tty=tty)
    return Answerer(read_speaker(model), ChatSettings(**settings), Display(out)), out


def test_a_reply_is_what_the_policy_writes_with_the_prompts_of_the_run(exported: str) -> None:
    mine, out = answerer(exported)
    policy = taught_policy().eval()
    prompts = make_prompts(policy, QUESTIONS, ["0"] * len(QUESTIONS))
    sampling = Sampling(group_size=1, temperature=0.0, max_trace_tokens=32)
    written = write_answers(policy, TransformersEngine(), prompts, sampling, 16)
    assert written.marker_emitted.any()
    for index, question in enumerate(QUESTIONS):
        out.writes.clear()
        reply = mine.ask(question)
        trace, answer = written.trace_texts[index].strip(), written.answer_texts[index].strip()
        assert (reply.trace, reply.answer) == (trace, answer)
        assert out.text.startswith(f"reasoning: {trace}\nanswer: {answer}\n")
        assert (reply.notes == []) == (bool(written.marker_emitted[index]) and bool(written.answers.stopped[index]))


def test_tokens_appear_one_by_one(exported: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, out = answerer(exported)
    seen: list[int] = []  # characters that stand on the display before each forward pass
    forward = mine.policy.network.forward
    monkeypatch.setattr(
        mine.policy.network, "forward", lambda *a, **k: (seen.append(len(out.text)), forward(*a, **k))[1]
    )
    reply = mine.ask(QUESTIONS[0])
    assert len(set(seen)) > len(reply.trace) / 2, "each token is written before the next one is sampled"


def test_a_terminal_dims_the_reasoning_alone(exported: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    mine, out = answerer(exported, tty=True)
    reply = mine.ask(QUESTIONS[0])
    assert out.text == f"\033[2mreasoning: {reply.trace}\033[0m\nanswer: {reply.answer}\033[0m\n"
    monkeypatch.setenv("NO_COLOR", "1")
    mine, out = answerer(exported, tty=True)
    mine.ask(QUESTIONS[0])
    assert "\033" not in out.text


def test_what_a_limit_cuts_and_what_is_forced_is_said(exported: str) -> None:
    mine, out = answerer(exported, max_trace_tokens=3, max_answer_tokens=1)
    reply = mine.ask(QUESTIONS[0])
    assert len(reply.notes) == 2
    assert "3 tokens (--max_trace_tokens); the marker was forced" in reply.notes[0]
    assert "1 tokens (--max_answer_tokens)" in reply.notes[1]
    assert all(f"note: {note}\n" in out.text for note in reply.notes)
    nothing, _ = answerer(exported, max_trace_tokens=0)
    assert "0 tokens" in nothing.ask(QUESTIONS[0]).notes[0]


def test_a_trace_that_ends_with_the_end_token_has_a_forced_marker(exported: str) -> None:
    mine, _ = answerer(exported)
    with torch.no_grad():  # what is the marker becomes the end token
        head = mine.policy.network.get_output_embeddings().weight
        head[mine.policy.tokenizer.eos_token_id] = 1.5 * head[mine.policy.markup.marker_ids[0]]
    assert "without the marker" in mine.ask(QUESTIONS[0]).notes[0]


def test_long_questions_lower_the_limits_or_are_refused(exported: str) -> None:
    mine, _ = answerer(exported, max_trace_tokens=10_000)
    assert mine.context == 256
    prompts = mine.prompts("a" * 200)
    sampling = mine.fitting(prompts)
    assert 200 < prompts.prompt_ids.shape[1] + sampling.max_trace_tokens + sampling.max_answer_tokens < 256
    assert min(sampling.max_trace_tokens, sampling.max_answer_tokens) > 0
    assert "the model's context is 256" in mine.limit("max_trace_tokens", sampling)
    with pytest.raises(InputError, match=r"301 tokens.*256"):
        mine.ask("a" * 300)
    assert mine.ask(QUESTIONS[0]).answer


def test_sampled_replies_repeat_by_seed(exported: str) -> None:
    def traces(seed: int) -> list[str]:
        mine, _ = answerer(exported, temperature=4.0, seed=seed)
        return [mine.ask(question).trace for question in QUESTIONS[:3]]

    assert traces(0) == traces(0)
    assert traces(0) != traces(1)


def test_an_adapter_alone_is_read_with_its_base(tmp_path) -> None:
    base = save_tiny(tmp_path / "base", "llama")
    policy = Policy(base, adapter=LoRA(rank=4)).load().eval()
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    export_policy(policy, tmp_path / "a", AdapterFiles(), record(policy))
    there, _ = answerer(str(tmp_path / "a"))
    here = Answerer(speaker_of(policy, record(policy)), ChatSettings(), Display(Terminal()))
    assert [there.ask(q) for q in QUESTIONS[:2]] == [here.ask(q) for q in QUESTIONS[:2]]


def test_a_policy_that_answers_at_once_shows_no_reasoning() -> None:
    policy = taught_policy().eval()
    direct = speaker_of(policy, record(policy, limits={"max_answer_tokens": 4}))
    out = Terminal()
    reply = Answerer(direct, ChatSettings(), Display(out)).ask(QUESTIONS[0])
    assert out.text.startswith(f"answer: {reply.answer}\n")
    assert reply.trace == ""
    with pytest.raises(InputError, match=r"temperature=0\.5"):
        Answerer(direct, ChatSettings(temperature=0.5), Display(out))


def test_another_model_has_no_record_which_is_said(caplog: pytest.LogCaptureFixture) -> None:
    speaker = read_speaker("embedded:registers-base")
    assert "no record of the prompts of a run" in caplog.text
    assert "never trained" in caplog.text
    assert Answerer(speaker, ChatSettings(), Display(Terminal())).sampling.max_trace_tokens == 512


def test_the_marker_of_the_run_is_recorded(tmp_path) -> None:
    policy = Policy(BASE, marker="<|so|>").load().eval()
    export_policy(policy, tmp_path / "m", record=record(policy))
    assert read_speaker(str(tmp_path / "m")).policy.markup == policy.markup


def test_a_marker_of_ordinary_tokens_is_no_part_of_the_trace(exported: str) -> None:
    whole, _ = answerer(exported)
    trace = whole.ask(QUESTIONS[0]).trace
    marker = trace[2:4]
    out = Terminal()
    mine = Answerer(read_speaker(exported, marker), ChatSettings(), Display(out))
    assert mine.policy.markup.marker_text == marker
    reply = mine.ask(QUESTIONS[0])
    assert reply.trace == trace[:2]
    assert out.text.startswith(f"reasoning: {trace[:2]}\nanswer: ")
    assert not any("marker" in note for note in reply.notes)


def test_the_whole_markup_of_the_run_is_recorded(tmp_path) -> None:
    policy = Policy(BASE, marker=";d", separator="0", answer_end=",,").load().eval()
    export_policy(policy, tmp_path / "m", record=record(policy))
    assert read_speaker(str(tmp_path / "m")).policy.markup == policy.markup


@pytest.mark.parametrize("text", ["{", "[]", '{"policy": {"marker": 3}, "limits": {}}',
                                  '{"policy": {}, "limits": {"max_trace_tokens": "9"}}'])  # fmt: skip
def test_a_damaged_record_is_named(exported: str, tmp_path, text: str) -> None:
    (tmp_path / "nrt_lightning.json").write_text(text)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(InputError, match=r"nrt_lightning\.json.*Export again"):
        read_speaker(str(tmp_path))


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"temperature": -1.0}, "temperature=-1"), ({"temperature": float("nan")}, "temperature=nan"),
     ({"top_p": 0.0}, "top_p=0"), ({"max_trace_tokens": -1}, "max_trace_tokens=-1"),
     ({"max_answer_tokens": 0}, "max_answer_tokens=0")],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(settings: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ChatSettings(**settings)


def test_what_may_become_the_marker_is_held_back() -> None:
    def shown(text: str, stop: str | None) -> list[str]:
        growing = Growing(lambda tokens: bytes(tokens).decode(errors="replace"), stop)
        return [growing.add(byte) for byte in text.encode()]

    assert shown("a\nAns\nAnswer: b", "\nAnswer:")[-1] == "a\nAns"
    assert all("Answer" not in text for text in shown("a\nAns\nAnswer: b", "\nAnswer:"))
    assert shown("aé", None) == ["a", "a", "aé"], "half a character is not shown"


def test_control_characters_of_a_model_are_not_obeyed() -> None:
    out = Terminal(tty=True)
    display = Display(out, color=False)
    display.begin("answer")
    display.grow("a\x1b[2Jb\tc\r")
    display.end("a\x1b[2Jb\tc\rd\n")
    assert out.text == "answer: a\\x1b[2Jb\tc\\rd\n"
    assert printable("x\u202ey") == "x\\u202ey"
