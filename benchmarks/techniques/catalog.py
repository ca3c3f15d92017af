"""All techniques by name."""

from __future__ import annotations

from benchmarks.techniques.answer_cache import Answers
from benchmarks.techniques.budget import TokenBudget
from benchmarks.techniques.checkpointing import Checkpointing
from benchmarks.techniques.chunked_head import ChunkedHead
from benchmarks.techniques.decoding_cache import DecodingCache
from benchmarks.techniques.decoding_products import DecodingProducts
from benchmarks.techniques.drawing import Drawing
from benchmarks.techniques.frozen_head import FrozenHead
from benchmarks.techniques.instructions import Instructions
from benchmarks.techniques.low_rank import LowRankUpdates
from benchmarks.techniques.masks import Masks
from benchmarks.techniques.one_pass import OnePass
from benchmarks.techniques.output_head import OutputHead
from benchmarks.techniques.prefill_head import PrefillHead
from benchmarks.techniques.prefix_sharing import PrefixSharing
from benchmarks.techniques.rollout import Rollout
from benchmarks.techniques.shared_decoding import SharedDecoding
from benchmarks.techniques.technique import Technique

TECHNIQUES: dict[str, Technique] = {
    technique.name: technique
    for technique in (
        PrefixSharing(),
        Checkpointing(),
        Instructions(),
        TokenBudget(),
        Rollout(),
        DecodingCache(),
        SharedDecoding(),
        DecodingProducts(),
        Drawing(),
        OutputHead(),
        PrefillHead(),
        ChunkedHead(),
        FrozenHead(),
        LowRankUpdates(),
        Masks(),
        Answers(),
        OnePass(),
    )
}
