"""Answers to the questions of a conversation, streamed as they are written."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from nrt_lightning.data.encoding import PromptEncoder
from nrt_lightning.errors import InputError
from nrt_lightning.export.record import LIMITS
from nrt_lightning.functional.validation import check_at_least, check_fraction
from nrt_lightning.models.policy.texts import decode, decode_answers
from nrt_lightning.randomness import counter_seed
from nrt_lightning.rollouts import Generations, write_answers
from nrt_lightning.rollouts.answering import trace_mask, write_directly
from nrt_lightning.structures import Prompts, Row, Sampling
from nrt_lightning.tools.chat.display import Display, Growing
from nrt_lightning.tools.chat.reading import Speaker
from nrt_lightning.tools.chat.streaming import StreamingEngine

MIN_ANSWER = 8


@dataclass(frozen=True)
class ChatSettings:
    """How questions are answered.

    Args:
        temperature: of the sampling distribution; 0 is greedy.
        top_p: keep the smallest set of tokens with at least this probability; 1 keeps all.
        max_trace_tokens: longer traces are cut; null for the limit of the run, or 512.
        max_answer_tokens: longer answers are cut; null for the limit of the run, or 256.
        seed: of the random draws.

    Raises:
        InputError: a number is out of range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_trace_tokens: int | None = None
    max_answer_tokens: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least("temperature", self.temperature, 0)
        check_fraction("top_p", self.top_p, above=True)
        for name, least in (("max_trace_tokens", 0), ("max_answer_tokens", 1)):
            if (value := getattr(self, name)) is not None:
                check_at_least(name, value, least)

    def sampling(self, limits: dict[str, int]) -> Sampling:
        """The settings, with the limits of the run where none is given."""
        return dataclasses.replace(
            Sampling(group_size=1, temperature=self.temperature, top_p=self.top_p),
            **limits | {name: limit for name in LIMITS if (limit := getattr(self, name)) is not None},
        )


@dataclass
class Reply:
    """What a policy wrote.

    Args:
        trace: empty if the policy writes none.
        answer: text of the answer.
        notes: what was cut or forced.
    """

    trace: str
    answer: str
    notes: list[str]


class Answerer:
    """Answers questions, each by itself.

    Args:
        speaker: policy, template and limits.
        settings: of the sampling.
        display: where traces and answers appear.

    Raises:
        InputError: sampled answers are asked of a policy that is decoded greedily.
    """

    def __init__(self, speaker: Speaker, settings: ChatSettings, display: Display) -> None:
        self.policy, self.writes_traces = speaker.policy, speaker.writes_traces
        if not self.writes_traces and settings.temperature:
            raise InputError(
                f"temperature={settings.temperature}: this model was trained to answer without a trace, and its "
                "answers are greedy. Remove it."
            )
        self.display, self.seed = display, settings.seed
        self.sampling = settings.sampling(speaker.limits)
        self.context: int | None = getattr(self.policy.config.get_text_config(), "max_position_embeddings", None)
        self.encoder = PromptEncoder(self.policy.tokenizer, speaker.template, max_prompt_tokens=10**9)
        self.asked = 0
        self._texts: list[str] = []  # of the parts of the reply so far
        self._growing = Growing(self.decode)
        self._reasons = False  # the part that is being written is the trace

    def ask(self, question: str) -> Reply:
        """Answer a question on the display.

        Raises:
            InputError: the question does not fit into the model's context, or its template refuses it.
        """
        prompts = self.prompts(question)
        sampling = self.fitting(prompts)
        self.asked += 1
        self._texts = []
        engine = StreamingEngine(start=self._start, write=self._write, finish=self._finish)
        with self.policy.evaluating():
            notes = (self.with_trace if self.writes_traces else self.at_once)(engine, prompts, sampling)
        for note in notes:
            self.display.note(note)
        return Reply(self._texts[0] if self.writes_traces else "", self._texts[-1], notes)

    def with_trace(self, engine: StreamingEngine, prompts: Prompts, sampling: Sampling) -> list[str]:
        """Write a trace, the marker and an answer; return what was cut or forced."""
        seed = counter_seed(self.seed, 0, self.asked, stream="chat")
        written = write_answers(self.policy, engine, prompts, sampling, sampling.max_answer_tokens, seed)
        notes = []
        if not bool(written.traces.stopped[0]):
            notes.append(f"the reasoning was cut at {self.limit('max_trace_tokens', sampling)}; the marker was forced.")
        elif not bool(written.marker_emitted[0]):
            notes.append("the reasoning ended without the marker, which was forced.")
        return notes + self.cut_answer(written.answers, sampling)

    def at_once(self, engine: StreamingEngine, prompts: Prompts, sampling: Sampling) -> list[str]:
        """Write an answer without trace and marker; return what was cut."""
        return self.cut_answer(write_directly(self.policy, engine, prompts, sampling.max_answer_tokens), sampling)

    def cut_answer(self, answers: Generations, sampling: Sampling) -> list[str]:
        """A note if the answer did not end by itself."""
        if bool(answers.stopped[0]):
            return []
        return [f"the answer was cut at {self.limit('max_answer_tokens', sampling)}."]

    def limit(self, name: str, sampling: Sampling) -> str:
        """A limit in words, and where it comes from."""
        tokens = getattr(sampling, name)
        source = f"--{name}" if tokens == getattr(self.sampling, name) else f"the model's context is {self.context}"
        return f"its limit of {tokens} tokens ({source})"

    def prompts(self, question: str) -> Prompts:
        """A batch of one question."""
        row = Row(str(self.asked), [{"role": "user", "content": question}], None, "the question")
        encoded = self.encoder.fitting([row])
        return encoded.collate([encoded[0]]).to(self.policy.device)

    def fitting(self, prompts: Prompts) -> Sampling:
        """The limits, lowered to what the model's context leaves after the question.

        Raises:
            InputError: it leaves nothing.
        """
        if self.context is None:
            return self.sampling
        used = prompts.prompt_ids.shape[1]
        room = self.context - used - len(self.policy.markup.marker_ids)
        if room < MIN_ANSWER:
            raise InputError(
                f"the question has {used} tokens, which leaves no room for an answer in the model's context of "
                f"{self.context}. Shorten it."
            )
        answer = min(self.sampling.max_answer_tokens, max(room // 4, MIN_ANSWER))
        trace = min(self.sampling.max_trace_tokens, room - answer)
        answer = min(self.sampling.max_answer_tokens, room - trace)  # what the trace leaves
        return dataclasses.replace(self.sampling, max_trace_tokens=trace, max_answer_tokens=answer)

    def decode(self, tokens: list[int]) -> str:
        """The text of tokens, without special ones; of an answer without white space before it."""
        text = self.policy.tokenizer.decode(tokens, skip_special_tokens=True)
        return text if self._reasons else text.lstrip()

    def _start(self) -> None:
        self._reasons = self.writes_traces and not self._texts
        markup = self.policy.markup
        self._growing = Growing(self.decode, markup.marker_text if self._reasons else markup.end_text)
        self.display.begin("reasoning" if self._reasons else "answer", dim=self._reasons)

    def _write(self, token: int) -> None:
        self.display.grow(self._growing.add(token))

    def _finish(self, generations: Generations) -> None:
        ids = generations.token_ids
        if self._reasons:
            [text] = decode(self.policy, ids, trace_mask(generations))
        else:
            [text] = decode_answers(self.policy, ids, generations.token_mask)
        self._texts.append(text.strip())
        self.display.end(self._texts[-1])
