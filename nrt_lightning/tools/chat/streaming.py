"""An engine that hands over every token as it is sampled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor
from typing_extensions import override

from nrt_lightning.rollouts import GenerationRequest, Generations, Progress, TransformersEngine
from nrt_lightning.rollouts.decoding import Decoder

if TYPE_CHECKING:
    from nrt_lightning.models.policy.policy import Policy


@dataclass(frozen=True)
class StreamingEngine(TransformersEngine):
    """Samples from the policy's model, and calls `write` with every token of the first row before the next one.

    The last token of a request, with which it stops, is not handed over.

    Args:
        start: called at the beginning of every request.
        write: called with a token.
        finish: called with what was sampled for a request.
    """

    check_every: int | None = 1  # to stop at once
    fixed_shapes: bool | None = field(default=False, kw_only=True)  # a graph would be captured for every question
    start: Callable[[], Any] = field(default=lambda: None, kw_only=True)
    write: Callable[[int], Any] = field(default=lambda token: None, kw_only=True)
    finish: Callable[[Generations], Any] = field(default=lambda generations: None, kw_only=True)

    @override
    def generate(self, policy: Policy, request: GenerationRequest, progress: Progress | None = None) -> Generations:
        self.start()
        generations = super().generate(policy, request, progress)
        self.finish(generations)
        return generations

    @override
    def _start(self, *args: Any) -> tuple[Tensor, Decoder]:
        logits, decoder = super()._start(*args)
        return logits, WritingDecoder(decoder, self.write)


class WritingDecoder(Decoder):
    """Decodes as another decoder, and hands over the tokens that it appends to the first row."""

    def __init__(self, decoder: Decoder, write: Callable[[int], Any]) -> None:
        self.decoder, self.write = decoder, write
        self.min_drop_share = decoder.min_drop_share

    @override
    def step(self, tokens: Tensor) -> Tensor:
        self.write(int(tokens[0]))
        return self.decoder.step(tokens)

    @override
    def keep(self, rows: Tensor) -> None:
        self.decoder.keep(rows)
