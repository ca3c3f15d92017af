"""Plans a run on each device: memory by part and phase, tokens and FLOPs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from nrt_lightning.models import EMAReference, InitialBaseline, Reference
from nrt_lightning.modules.nrt import NRTModule
from nrt_lightning.rollouts import TransformersEngine
from nrt_lightning.tools.planning.duration import Decoding
from nrt_lightning.tools.planning.extrapolation import of_all_layers
from nrt_lightning.tools.planning.miniature import Miniature, Needs
from nrt_lightning.tools.planning.optimizer import measure_optimizer
from nrt_lightning.tools.planning.sharding import passing_gradients, passing_weights, whole_weights
from nrt_lightning.tools.planning.sizes import Lengths
from nrt_lightning.tools.planning.sketch import Skeleton, count

if TYPE_CHECKING:
    from nrt_lightning.modules.base import PolicyModule

HALF = {"16-true": torch.float16, "bf16-true": torch.bfloat16}
Parts = dict[str, int]  # bytes by part


@dataclass(frozen=True)
class Machine:
    """Devices and settings of the trainer."""

    precision: str = "32-true"
    devices: int = 1
    accumulate: int = 1  # batches of an optimizer step on a device
    sharded: bool = field(default=False, kw_only=True)  # weights, gradients and optimizer are sharded over devices
    gpu: bool = field(default=False, kw_only=True)

    @property
    def computed(self) -> str:
        """Precision of the computation: under mixed precision, sharded weights are gathered in 16 bits."""
        return "bf16-true" if self.sharded and self.precision.endswith("-mixed") else self.precision


@dataclass
class Plan:
    """Memory of one device, and the work of an optimizer step on all devices."""

    parameters: dict[str, int]
    memory: dict[str, Parts]  # by phase
    part: Lengths  # of a forward and backward pass
    sampled: Lengths | None  # of what is sampled at once
    tokens: dict[str, int]  # of an optimizer step
    flops: dict[str, float]  # of an optimizer step
    devices: int = 1
    decoding: Decoding | None = None  # if traces are sampled in the trainer's processes
    uncounted: list[str] = field(default_factory=list)  # parts of the method whose memory is unknown

    @property
    def totals(self) -> dict[str, int]:
        """Bytes by phase."""
        return {phase: sum(parts.values()) for phase, parts in self.memory.items()}

    @property
    def peak(self) -> str:
        """The phase with the most memory."""
        return max(self.totals, key=lambda phase: self.totals[phase])

    @property
    def largest(self) -> str:
        """The largest part of the peak."""
        parts = self.memory[self.peak]
        return max(parts, key=lambda part: parts[part])


def make_plan(module: PolicyModule, batch: Lengths, window: int, machine: Machine) -> Plan:
    """Plan a run.

    Args:
        module: with a `Sketch` as its policy.
        batch: the rows of a batch on one device.
        window: number of batches whose traces are sampled at once.
        machine: devices and settings of the trainer.
    """
    policy: Any = module.policy
    skeleton = Skeleton(policy, HALF.get(machine.precision))
    fixed = lasting(module, skeleton, machine)
    thinking = module if isinstance(module, NRTModule) else None
    reference, baseline = (
        (thinking.method.needs_reference, thinking.method.needs_baseline) if thinking else (False, False)
    )
    part = dataclasses.replace(batch, prompts=prompts_at_once(module, batch))
    held = machine.accumulate > 1 or part.prompts < batch.prompts
    needs = of_all_layers(
        policy,
        part,
        machine.computed,
        lambda small: small.learn(baseline=baseline, reference=reference, accumulate=held),
        gradients=1 / machine.devices if machine.sharded else 1.0,
    )
    memory = {
        "learning": fixed | passing(needs, skeleton, machine) | sharded(skeleton, machine),
        "optimizer step": fixed | stepping(module, skeleton, machine),
    }
    flops = {name: number * batch.prompts / part.prompts for name, number in needs.flops.items()}
    tokens = {"prompts": batch.prompts * batch.prompt, "scored": batch.rollouts * batch.completion}
    sampled = decoding = None
    if thinking:
        tokens["sampled"] = batch.rollouts * batch.trace
        if isinstance(thinking.engine, TransformersEngine):
            sampled = dataclasses.replace(batch, prompts=prompts_sampled(thinking.engine, batch, window))
            drawn = of_all_layers(policy, sampled, machine.computed, sampler(module, machine), by_row=True)
            flops = {name: number * batch.prompts / sampled.prompts for name, number in drawn.flops.items()} | flops
            weights = whole_weights(skeleton, machine.precision)
            whole = {"weights gathered": weights} if machine.sharded else {}
            memory["rollout"] = fixed | passing(drawn, skeleton, machine) | whole
            cache = memory["rollout"].get("KV cache", 0)
            decoding = Decoding.of(batch.rollouts * machine.accumulate, sampled, weights, cache)
    batches = machine.accumulate * machine.devices
    return Plan(
        {"base": count(skeleton.base), "adapter": count(skeleton.adapter), "trained": count(skeleton.trained)},
        memory,
        part,
        sampled,
        {name: number * batches for name, number in tokens.items()},
        {name: number * batches for name, number in flops.items()},
        machine.devices,
        decoding,
        uncounted(thinking) if thinking else [],
    )


def sampler(module: Any, machine: Machine) -> Callable[[Miniature], Needs]:
    """The rollout of a miniature."""
    return lambda small: small.sample(module.engine, module.method.sampling, gpu=machine.gpu)


def prompts_sampled(engine: TransformersEngine, batch: Lengths, window: int) -> int:
    """Number of prompts whose traces are sampled together."""
    total = batch.prompts * window
    return min(total, max(1, engine.max_rows // batch.group_size)) if engine.max_rows else total


def prompts_at_once(module: PolicyModule, batch: Lengths) -> int:
    """Number of prompts in a forward and backward pass."""
    limit = getattr(module, "max_tokens_per_micro_batch", None)
    group = batch.prompt + batch.group_size * batch.completion + batch.answer
    return batch.prompts if limit in (None, "auto") else min(batch.prompts, max(1, limit // group))


def lasting(module: PolicyModule, skeleton: Skeleton, machine: Machine) -> Parts:
    """Memory that is held all the time."""
    shards = machine.devices if machine.sharded else 1
    optimizer = measure_optimizer(module.optimizer, skeleton.trained[0].dtype, on_gpu=machine.gpu)
    held = {
        "weights": skeleton.bytes(skeleton.base) // shards,
        "adapter": skeleton.bytes(skeleton.adapter) // shards,
        "optimizer": round(optimizer.states * count(skeleton.trained)) // shards,
    }
    if isinstance(module, NRTModule):
        held["reference"] = sum(reference_bytes(module, each) for each in references(module) if each.second_model)
    return held


def references(module: NRTModule) -> list[Reference]:
    """The references that score completions or empty traces."""
    method = module.method
    scorer = method.baseline_scorer if method.needs_baseline else None
    held = [method.reference] if method.needs_reference or (scorer and scorer.needs_reference) else []
    return [*held, scorer.initial] if isinstance(scorer, InitialBaseline) else held


def reference_bytes(module: NRTModule, reference: Reference) -> int:
    """Bytes of a reference's weights."""
    policy: Any = module.policy
    names = ("model", "dtype", "quantization")  # what is not given is the policy's
    given = {name: value for name in names if (value := getattr(reference, name, None)) is not None}
    adapter = policy.adapter if isinstance(reference, EMAReference) else None  # it moves towards the policy's
    skeleton = Skeleton(type(policy)(**policy.settings | given | {"adapter": adapter}))
    return skeleton.bytes([*skeleton.base, *skeleton.adapter])


def uncounted(module: NRTModule) -> list[str]:
    """Parts of the method whose memory is unknown, as `setting Class`."""
    scorer, engine = module.method.baseline_scorer, module.engine
    known_scorer = scorer.from_policy_forward or scorer.needs_reference or isinstance(scorer, InitialBaseline)
    elsewhere = engine.own_weights and not engine.shares_device
    unknown: dict[str, list[Any]] = {
        "reference": [each for each in references(module) if each.second_model is None],
        "baseline_scorer": [scorer] if module.method.needs_baseline and not known_scorer else [],
        "engine": [] if elsewhere or isinstance(engine, TransformersEngine) else [engine],
    }
    return [f"{setting} {type(part).__name__}" for setting, parts in unknown.items() for part in parts]


def passing(needs: Needs, skeleton: Skeleton, machine: Machine) -> Parts:
    """What a phase holds at its peak, besides what is held all the time."""
    parts = dict(needs.memory)
    if machine.sharded:
        parts.pop("weights as cast", None)  # they are gathered in the dtype of the computation
    if skeleton.largest_quantized:
        parts["weights as cast"] = parts.get("weights as cast", 0) + skeleton.largest_quantized
    if machine.devices > 1 and not machine.sharded and parts.get("gradients"):
        parts["gradients"] *= 2  # DDP keeps a second copy in buckets
    return parts


def sharded(skeleton: Skeleton, machine: Machine) -> Parts:
    """Gradients and gathered weights of a forward and backward pass under sharding."""
    if not machine.sharded:
        return {}
    return {
        "gradients": skeleton.bytes(skeleton.trained) // machine.devices,
        "weights gathered": passing_weights(skeleton, machine.precision),
        "gradients gathered": passing_gradients(skeleton, machine.precision),
    }


def stepping(module: PolicyModule, skeleton: Skeleton, machine: Machine) -> Parts:
    """What the optimizer's step holds, besides what is held all the time."""
    optimizer = measure_optimizer(module.optimizer, skeleton.trained[0].dtype, on_gpu=machine.gpu)
    shards = machine.devices if machine.sharded else 1
    together = count(skeleton.trained) if optimizer.all_at_once else max(p.numel() for p in skeleton.trained)
    return {
        "gradients": skeleton.bytes(skeleton.trained) // shards,
        "optimizer at work": round(optimizer.working * together) // shards,
    }
