"""The policy (a causal language model with its tokenizer and marker), references, and the scoring forward."""

from nrt_lightning.models.adapters.base import Adapter
from nrt_lightning.models.adapters.four_bit import FourBit
from nrt_lightning.models.adapters.lora import LoRA
from nrt_lightning.models.adapters.quantization import Quantization
from nrt_lightning.models.policy.policy import Policy
from nrt_lightning.models.references.adapter_disabled import AdapterDisabledReference
from nrt_lightning.models.references.base import FrozenReference, NoReference, Reference
from nrt_lightning.models.references.baselines import BaselineScorer, InitialBaseline, PolicyBaseline, ReferenceBaseline
from nrt_lightning.models.references.ema import EMAReference
from nrt_lightning.models.references.quantized import QuantizedReference
from nrt_lightning.models.scoring.base import PromptCopies, ScoringForward
from nrt_lightning.models.scoring.best import BestScoring
from nrt_lightning.models.scoring.packed_groups import PackedGroups
from nrt_lightning.models.scoring.prompt_tree import PromptTree
from nrt_lightning.models.scoring.shared_prompt import SharedPrompt

__all__ = [
    "Adapter", "AdapterDisabledReference", "BaselineScorer", "BestScoring", "EMAReference", "FourBit",
    "FrozenReference", "InitialBaseline", "LoRA", "NoReference", "PackedGroups", "Policy", "PolicyBaseline",
    "PromptCopies", "PromptTree", "Quantization", "QuantizedReference", "Reference", "ReferenceBaseline",
    "ScoringForward", "SharedPrompt"
]  # fmt: skip
