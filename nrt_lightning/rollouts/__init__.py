"""Rollout engines, and the assembly of sampled token ids into rollouts."""

from nrt_lightning.rollouts.answering import Written, write_answers
from nrt_lightning.rollouts.assembly import assemble, direct_answers
from nrt_lightning.rollouts.engine import GenerationRequest, Generations, Progress, RolloutEngine, trace_request
from nrt_lightning.rollouts.pairing import PromptAndTrace, all_pairs, first_traces
from nrt_lightning.rollouts.policy_answers import respond, write_policy_answers
from nrt_lightning.rollouts.transformers_engine import TransformersEngine

__all__ = [
    "GenerationRequest", "Generations", "Progress", "PromptAndTrace", "RolloutEngine", "TransformersEngine", "Written",
    "all_pairs", "assemble", "direct_answers", "first_traces", "respond", "trace_request", "write_answers",
    "write_policy_answers"
]  # fmt: skip
