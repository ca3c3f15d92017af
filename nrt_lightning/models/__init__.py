"""The policy (a causal language model with its tokenizer and marker), references, and the scoring forward."""

from nrt_lightning.models.policy import Policy
from nrt_lightning.models.references import FrozenReference, NoReference, Reference
from nrt_lightning.models.scoring import PromptCopies, ScoringForward

__all__ = ["FrozenReference", "NoReference", "Policy", "PromptCopies", "Reference", "ScoringForward"]
