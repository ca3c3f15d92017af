"""The policy (a causal language model with its tokenizer and marker), references, and the scoring forward."""

from nrt_lightning.models.adapter import Adapter
from nrt_lightning.models.adapter_disabled_reference import AdapterDisabledReference
from nrt_lightning.models.best_scoring import BestScoring
from nrt_lightning.models.four_bit import FourBit
from nrt_lightning.models.lora import LoRA
from nrt_lightning.models.packed_groups import PackedGroups
from nrt_lightning.models.policy import Policy
from nrt_lightning.models.prompt_tree import PromptTree
from nrt_lightning.models.quantization import Quantization
from nrt_lightning.models.quantized_reference import QuantizedReference
from nrt_lightning.models.references import FrozenReference, NoReference, Reference
from nrt_lightning.models.scoring import PromptCopies, ScoringForward
from nrt_lightning.models.shared_prompt import SharedPrompt

__all__ = [
    "Adapter",
    "AdapterDisabledReference",
    "BestScoring",
    "FourBit",
    "FrozenReference",
    "LoRA",
    "NoReference",
    "PackedGroups",
    "Policy",
    "PromptCopies",
    "PromptTree",
    "Quantization",
    "QuantizedReference",
    "Reference",
    "ScoringForward",
    "SharedPrompt",
]
