"""Sizes of a step, and small sizes that stand for them."""

from __future__ import annotations

import copy
import math
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nrt_lightning.functional.linear_logprobs import CHUNK
from nrt_lightning.models.scoring.layout import BUCKET
from nrt_lightning.rollouts.growing_cache import ROOM

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Sizes that stand for themselves: buckets of the scoring forwards, pairs, ranks of adapters.
TAKEN = {1, 2, 4, 8, 16, 32, 64, 128, 256}
STEPS = 2  # tokens of a small trace: the second is decoded with a cache of P + 1 tokens


@dataclass(frozen=True)
class Lengths:
    """Largest lengths of the rows of a micro-batch, in tokens."""

    prompts: int  # B
    group_size: int  # K
    prompt: int  # P
    trace: int
    answer: int  # T, with the end token
    thinking: bool = field(default=True, kw_only=True)  # False: the answer follows the prompt without trace and marker

    @property
    def rollouts(self) -> int:
        """N."""
        return self.prompts * self.group_size

    @property
    def completion(self) -> int:
        """C."""
        return self.trace + 1 + self.answer if self.thinking else self.answer

    @property
    def chunks(self) -> int:
        """Number of chunks in which the output head processes the completions."""
        return math.ceil(self.rollouts * self.completion / CHUNK)

    def extents(self, chunk: int) -> list[int]:
        """All sizes that tensors may have along tokens or rows, in the same order for all lengths.

        Args:
            chunk: positions that the output head processes at a time.
        """
        b, n, p, t, c = self.prompts, self.rollouts, self.prompt, self.answer, self.completion
        sequences = [p, t, t + 1, c, c - 1, c + 1, p + c, p + c - 1, p + t, p + t + 1, p + self.group_size * c]
        rows = [b * p, n * c, n * (c - 1), b * p + n * (c - 1), b * t, b * (t + 1), b * (p + t), n * (p + c)]
        buckets = [
            rows * width for whole, width in ((n, c - 1), (b, t)) for rows in (min(BUCKET, whole), whole % BUCKET)
        ]
        cache = p + self.trace - 1  # tokens before the last is decoded
        buffer = p + math.ceil((self.trace - 1) / (ROOM + 1)) * (ROOM + 1)
        return [b, n, chunk, *sequences, *rows, *buckets, cache, buffer, p + self.trace]


@dataclass(frozen=True)
class Widths:
    """Widths of a decoder."""

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int

    @classmethod
    def of(cls, config: PretrainedConfig) -> Widths:
        """Widths in a configuration."""
        c: Any = config.get_text_config()
        heads, hidden = c.num_attention_heads, c.hidden_size
        return cls(
            hidden=hidden,
            intermediate=getattr(c, "intermediate_size", None) or getattr(c, "n_inner", None) or 4 * hidden,
            heads=heads,
            kv_heads=getattr(c, "num_key_value_heads", None) or heads,
            head_size=getattr(c, "head_dim", None) or hidden // heads,
            vocabulary=c.vocab_size,
        )

    def extents(self) -> list[int]:
        """All sizes that tensors may have along features, in the same order for all widths."""
        query, key = self.heads * self.head_size, self.kv_heads * self.head_size
        plain = [self.hidden, self.intermediate, self.heads, self.kv_heads, self.head_size, self.head_size // 2]
        fused = [query, key, query + 2 * key, 2 * self.intermediate, 3 * self.hidden]
        return [*plain, *fused, self.vocabulary]

    def applied(self, config: PretrainedConfig) -> PretrainedConfig:
        """A copy of a configuration with these widths."""
        small = copy.deepcopy(config)
        text: Any = small.get_text_config()
        values = {
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_size,
            "vocab_size": self.vocabulary,
        }
        for name, value in values.items():
            if getattr(text, name, None) is not None:
                setattr(text, name, value)
        for role in ("pad_token_id", "bos_token_id", "eos_token_id"):
            setattr(text, role, None)
        return small


@dataclass(frozen=True)
class Scale:
    """Small sizes, and the full size that each stands for."""

    lengths: Lengths
    widths: Widths
    chunk: int  # positions that the output head processes at a time
    full: dict[int, int]


def scale_down(config: PretrainedConfig, lengths: Lengths) -> Scale:
    """Choose small, unambiguous sizes, so that a step is fast."""
    widths, draw = Widths.of(config), random.Random(0)
    tied = widths.hidden == widths.heads * widths.head_size
    for attempt in range(100_000):
        # A chunk is about as long as a completion of CHUNK tokens, and is told from it only if both are long.
        prompt, answer = draw.randint(9, 60), draw.randint(5, 40 if attempt < 20_000 else 400)
        small = Lengths(lengths.prompts, lengths.group_size, prompt, STEPS, answer, thinking=lengths.thinking)
        positions = small.rollouts * small.completion
        least = math.ceil(positions / lengths.chunks)
        most = least if lengths.chunks == 1 else (positions - 1) // (lengths.chunks - 1)  # for as many chunks
        chunk = max(3, draw.randint(least, max(least, most)))
        kv_heads = 1 if widths.kv_heads == 1 else draw.randint(2, 7)
        heads, size = kv_heads * (widths.heads // widths.kv_heads), 2 * draw.randint(3, 12)
        narrow = Widths(
            hidden=heads * size if tied else draw.randint(20, 150),
            intermediate=draw.randint(20, 250),
            heads=heads,
            kv_heads=kv_heads,
            head_size=size,
            vocabulary=draw.randint(70, 400),
        )
        full = correspondence(
            [*small.extents(chunk), *narrow.extents()],
            [*lengths.extents(min(CHUNK, lengths.rollouts * lengths.completion)), *widths.extents()],
        )
        if full is not None:
            return Scale(small, narrow, chunk, full)
    raise RuntimeError(f"no small sizes found for {lengths} and {widths}")


def correspondence(small: list[int], full: list[int]) -> dict[int, int] | None:
    """Map small to full sizes; None if a small size would stand for two.

    >>> correspondence([3, 5, 3], [30, 50, 30])[5]
    50
    >>> correspondence([3, 3], [30, 50]) is None
    True
    """
    found = {size: size for size in TAKEN}
    for one, other in zip(small, full, strict=True):
        if found.setdefault(one, other) != other:
            return None
    return found
