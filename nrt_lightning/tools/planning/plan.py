"""What a run needs on each device: memory by part and phase, tokens and FLOPs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from nrt_lightning.models import FrozenReference, InitialBaseline, Reference, ReferenceBaseline
from nrt_lightning.modules.nrt import NRTModule
from nrt_lightning.rollouts import TransformersEngine
from nrt_lightning.tools.planning.duration import Decoding
from nrt_lightning.tools.planning.flops import Work
from nrt_lightning.tools.planning.miniature import Miniature, Needs, of_all_layers
from nrt_lightning.tools.planning.optimizer import ask_optimizer
from nrt_lightning.tools.planning.sharding import passing_gradients, passing_weights, whole_weights
from nrt_lightning.tools.planning.sizes import Lengths, Widths
from nrt_lightning.tools.planning.sketch import Skeleton, count

if TYPE_CHECKING:
    from nrt_lightning.modules.base import PolicyModule

HALF = {"16-true": torch.float16, "bf16-true": torch.bfloat16}
Parts = dict[str, int]  # bytes by part


@dataclass(frozen=True)
class Machine:
    """How the trainer runs."""

    precision: str = "32-true"
    devices: int = 1
    accumulate: int = 1  # batches of an optimizer step on a device
    sharded: bool = False  # weights, gradients and optimizer are divided among the devices
    gpu: bool = False

    @property
    def computed(self) -> str:
        """The precision of what is computed: sharded weights are gathered in 16 bits, and all that follows is, too."""
        return "bf16-true" if self.sharded and self.precision.endswith("-mixed") else self.precision


@dataclass
class Plan:
    """What one device needs, and the work of one optimizer step on all of them."""

    parameters: dict[str, int]
    memory: dict[str, Parts]  # by phase
    part: Lengths  # of a forward and backward pass
    sampled: Lengths | None  # of what is sampled at once
    tokens: dict[str, int]  # of an optimizer step
    flops: dict[str, float]  # of an optimizer step
    devices: int = 1
    decoding: Decoding | None = None  # where traces are sampled in the trainer's processes

    @property
    def totals(self) -> dict[str, int]:
        """Bytes by phase."""
        return {phase: sum(parts.values()) for phase, parts in self.memory.items()}

    @property
    def peak(self) -> str:
        """The phase that needs most."""
        return max(self.totals, key=lambda phase: self.totals[phase])

    @property
    def largest(self) -> str:
        """The part that takes most of the peak."""
        parts = self.memory[self.peak]
        return max(parts, key=lambda part: parts[part])


def make_plan(module: PolicyModule, batch: Lengths, window: int, machine: Machine) -> Plan:
    """Plan a run.

    Args:
        module: with a `Sketch` as its policy.
        batch: the rows of a batch on one device.
        window: batches for which traces are sampled at once.
        machine: what it runs on.
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
        lambda small: small.learn(baseline, reference, held),
        gradients=1 / machine.devices if machine.sharded else 1.0,
    )
    memory = {
        "learning": fixed | passing(needs, skeleton, machine) | shared_out(skeleton, machine),
        "optimizer step": fixed | stepping(module, skeleton, machine),
    }
    work = Work(skeleton, Widths.of(policy.config), batch)
    flops = work.learning(needs, batch.prompts / part.prompts, baseline, reference)
    tokens = {"prompts": batch.prompts * batch.prompt, "scored": batch.rollouts * batch.completion}
    sampled = decoding = None
    if isinstance(module, NRTModule):
        flops = {"rollout": work.sampling()} | flops
        tokens["sampled"] = batch.rollouts * batch.trace
        if isinstance(module.engine, TransformersEngine):
            sampled = dataclasses.replace(batch, prompts=prompts_sampled(module.engine, batch, window))
            drawn = of_all_layers(policy, sampled, machine.computed, sampler(module, machine))
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
    )


def sampler(module: Any, machine: Machine) -> Callable[[Miniature], Needs]:
    """The rollout of a miniature."""
    return lambda small: small.sample(module.engine, module.method.sampling, machine.gpu)


def prompts_sampled(engine: TransformersEngine, batch: Lengths, window: int) -> int:
    """Prompts whose traces are sampled together."""
    all_of_them = batch.prompts * window
    return min(all_of_them, max(1, engine.max_rows // batch.group_size)) if engine.max_rows else all_of_them


def prompts_at_once(module: PolicyModule, batch: Lengths) -> int:
    """Prompts that go through a forward and backward pass together."""
    limit = getattr(module, "max_tokens_per_micro_batch", None)
    group = batch.prompt + batch.group_size * batch.completion + batch.answer
    return batch.prompts if limit is None else min(batch.prompts, max(1, limit // group))


def lasting(module: PolicyModule, skeleton: Skeleton, machine: Machine) -> Parts:
    """What is there all the time."""
    share = machine.devices if machine.sharded else 1
    asked = ask_optimizer(module.optimizer, skeleton.trained[0].dtype, machine.gpu)
    held = {
        "weights": skeleton.bytes(skeleton.base) // share,
        "adapter": skeleton.bytes(skeleton.adapter) // share,
        "optimizer": round(asked.states * count(skeleton.trained)) // share,
    }
    if isinstance(module, NRTModule):
        held["reference"] = sum(reference_bytes(module, each) for each in second_models(module))
    return held


def second_models(module: NRTModule) -> list[Reference]:
    """What scores completions or empty traces beside the policy."""
    method = module.method
    scorer = method.baseline_scorer if method.needs_baseline else None
    held = [method.reference] if method.needs_reference or isinstance(scorer, ReferenceBaseline) else []
    return [*held, scorer.initial] if isinstance(scorer, InitialBaseline) else held


def reference_bytes(module: NRTModule, reference: Reference) -> int:
    """Bytes of a reference's own weights: none where it is the policy without its adapter."""
    if not isinstance(reference, FrozenReference):
        return 0
    policy: Any = module.policy
    given = {"adapter": None, "quantization": getattr(reference, "quantization", None)}
    given |= {name: value for name in ("model", "dtype") if (value := getattr(reference, name, None)) is not None}
    skeleton = Skeleton(type(policy)(**policy.settings | given))
    return skeleton.bytes(skeleton.base)


def passing(needs: Needs, skeleton: Skeleton, machine: Machine) -> Parts:
    """What a phase holds at its peak, beside what is there all the time."""
    parts = dict(needs.memory)
    if machine.sharded:
        parts.pop("weights as cast", None)  # they are gathered in the dtype that is computed with
    if skeleton.largest_quantized:
        parts["weights as cast"] = parts.get("weights as cast", 0) + skeleton.largest_quantized
    if machine.devices > 1 and not machine.sharded and parts.get("gradients"):
        parts["gradients"] *= 2  # DDP keeps them a second time, in buckets
    return parts


def shared_out(skeleton: Skeleton, machine: Machine) -> Parts:
    """What is whole for a while in a forward and backward pass, of weights that are divided among devices."""
    if not machine.sharded:
        return {}
    return {
        "gradients": skeleton.bytes(skeleton.trained) // machine.devices,
        "weights gathered": passing_weights(skeleton, machine.precision),
        "gradients gathered": passing_gradients(skeleton, machine.precision),
    }


def stepping(module: PolicyModule, skeleton: Skeleton, machine: Machine) -> Parts:
    """What the optimizer's step holds, beside what is there all the time."""
    asked = ask_optimizer(module.optimizer, skeleton.trained[0].dtype, machine.gpu)
    share = machine.devices if machine.sharded else 1
    together = count(skeleton.trained) if asked.all_at_once else max(p.numel() for p in skeleton.trained)
    return {
        "gradients": skeleton.bytes(skeleton.trained) // share,
        "optimizer at work": round(asked.working * together) // share,
    }
