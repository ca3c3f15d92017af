"""Selection of the layers that are adapted and quantized, and what they leave out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OTHERS = ("Router", "GroupedLinear")  # names of subclasses of `nn.Linear` that compute something else end with these
NAMED = 4  # kinds of weights that a message names


def linear_names(model: PreTrainedModel) -> list[str]:
    """Full names of all linear layers except the output head, GPT-2's `Conv1D` included."""
    head, kinds = model.get_output_embeddings(), nn.Linear | Conv1D
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]
    return [name for name, module in found if module is not head and not computes_else(module)]


def other_names(model: PreTrainedModel) -> list[str]:
    """Full names of layers that are linear in name only: routers of mixture models return more than a product."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and computes_else(module)]


def computes_else(module: nn.Module) -> bool:
    """True if a subclass of `nn.Linear` does not return a product."""
    return type(module).__name__.endswith(OTHERS)


def linear_weights(model: PreTrainedModel) -> set[int]:
    """Identities of the parameters of all linear layers."""
    return {id(p) for name in linear_names(model) for p in model.get_submodule(name).parameters()}


def adapted_weights(model: nn.Module) -> set[int]:
    """Identities of the parameters that low-rank updates adapt; peft also adapts the experts of some mixture models."""
    found: set[int] = set()
    for module in model.modules():
        if hasattr(module, "lora_A"):
            base, name = module.get_base_layer(), getattr(module, "parameter_name", None)  # type: ignore[operator]
            found |= {id(p) for p in ([getattr(base, name)] if name else base.parameters())}
    return found


@dataclass(frozen=True)
class LowRankUpdate:
    """What a layer of an adapter adds to `W x`: `scale * b (a x)`."""

    name: str
    a: Tensor  # [r, in]
    b: Tensor  # [out, r]
    scale: float


def low_rank_update(layer: Any) -> LowRankUpdate | None:
    """The active update of an adapted `nn.Linear`; None if there is none, several, or one that computes more."""
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    if len(names) != 1 or layer.disable_adapters or layer.merged or layer.lora_variant:
        return None
    a, b = layer.lora_A[names[0]], layer.lora_B[names[0]]
    linear = all(isinstance(part, nn.Linear) for part in (layer.get_base_layer(), a, b))
    if not linear or b.bias is not None:
        return None
    return LowRankUpdate(names[0], a.weight, b.weight, layer.scaling[names[0]])


def left_out(model: PreTrainedModel, covered: set[int]) -> str | None:
    """The share of the weights that is covered, and the matrices that are not; None if all are.

    Embeddings, output head, norms and biases are not counted. In mixture models the experts of a layer are one
    three-dimensional parameter each, which 4-bit storage does not cover and adapters only for some models.

    Args:
        model: possibly with an adapter.
        covered: identities of parameters.
    """
    ends = {id(p) for module in (model.get_input_embeddings(), model.get_output_embeddings())
            for p in module.parameters()}  # fmt: skip
    others: dict[str, int] = {}
    inside = 0
    for name, parameter in model.named_parameters():
        owner = model.get_submodule(name.rpartition(".")[0])
        if id(parameter) in covered:
            inside += weights_of(parameter) if parameter.dim() > 1 else 0
            continue
        embeds = id(parameter) in ends or isinstance(owner, nn.Embedding)
        if parameter.dim() > 1 and not embeds and "lora_" not in name and not name.endswith("bias"):
            kind = f"{type(owner).__name__}.{name.rpartition('.')[2]}"
            others[kind] = others.get(kind, 0) + weights_of(parameter)
    if not others:
        return None
    total, largest = inside + sum(others.values()), sorted(others, key=lambda kind: -others[kind])
    names = ", ".join(f"{kind} ({100 * others[kind] / total:.2g} %)" for kind in largest[:NAMED])
    more = f" and {len(largest) - NAMED} more" if len(largest) > NAMED else ""
    return f"{100 * inside / total:.3g} % of the weights. Left out: {names}{more}"


def weights_of(parameter: nn.Parameter) -> int:
    """The number of weights of a parameter; 4-bit weights are packed."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()
