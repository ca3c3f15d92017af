"""All techniques by name."""

from __future__ import annotations

from benchmarks.techniques.budget import TokenBudget
from benchmarks.techniques.chunked_head import ChunkedHead
from benchmarks.techniques.drawing import Drawing
from benchmarks.techniques.one_pass import OnePass
from benchmarks.techniques.output_head import OutputHead
from benchmarks.techniques.prefill_head import PrefillHead
from benchmarks.techniques.prefix_sharing import PrefixSharing
from benchmarks.techniques.rollout import Rollout
from benchmarks.techniques.technique import Technique

TECHNIQUES: dict[str, Technique] = {
    technique.name: technique
    for technique in (
        PrefixSharing(),
        TokenBudget(),
        Rollout(),
        Drawing(),
        OutputHead(),
        PrefillHead(),
        ChunkedHead(),
        OnePass(),
    )
}
