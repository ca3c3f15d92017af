"""Formats a plan as text."""

from __future__ import annotations

from nrt_lightning.callbacks.results import aligned
from nrt_lightning.tools.planning.duration import Speed, durations
from nrt_lightning.tools.planning.plan import Plan

GIB = 2**30
PHASES = ("rollout", "learning", "optimizer step")
# Settings that reduce each part.
KNOBS = {
    "weights": "policy.quantization FourBit with an adapter, or trainer.precision bf16-true",
    "adapter": "policy.adapter.rank and targets",
    "optimizer": "policy.adapter LoRA, or an 8-bit optimizer",
    "reference": "model.reference QuantizedReference, or AdapterDisabledReference with an adapter",
    "gradients": "policy.adapter LoRA",
    "activations": "model.max_tokens_per_micro_batch, data.batch_size or policy.activation_checkpointing",
    "KV cache": "model.engine.max_rows or data.window",
    "logits": "model.engine.max_rows in the rollout, data.batch_size in learning",
    "weights as cast": "trainer.precision bf16-true, which needs no second copy",
    "weights gathered": "nothing in learning; in the rollout, an engine in other processes",
    "gradients gathered": "nothing: those of two blocks are unsharded at a time",
    "optimizer at work": "the optimizer's fused=true",
}


def report(plan: Plan, device_bytes: int | None, speed: Speed | None = None) -> str:
    """The plan as text, with warnings if it exceeds the device or is incomplete.

    Args:
        plan: the plan.
        device_bytes: memory of a device; None if unknown.
        speed: of a device; None if unknown.
    """
    lines = [*memory_table(plan), "", *work_lines(plan), *time_lines(plan, speed), "", largest_line(plan)]
    if plan.uncounted:
        lines.append(f"WARNING: not counted, since their memory is unknown: {', '.join(plan.uncounted)}.")
    if device_bytes is not None and plan.totals[plan.peak] > device_bytes:
        lines.append(
            f"WARNING: {gib(plan.totals[plan.peak])} GiB are more than the device's {gib(device_bytes)} GiB, without "
            "the allocator's overhead. Reduce the largest part."
        )
    return "\n".join(lines)


def memory_table(plan: Plan) -> list[str]:
    """GiB by part and phase, on one device."""
    phases = [phase for phase in PHASES if phase in plan.memory]
    names = list(dict.fromkeys(name for phase in phases for name in plan.memory[phase]))
    rows = [[name, *(gib(plan.memory[phase].get(name)) for phase in phases)] for name in names]
    rows = [row for row in rows if any(cell.strip("-0.") for cell in row[1:])]
    rows.append(["total", *(gib(plan.totals[phase]) for phase in phases)])
    return aligned([["GiB on each device", *phases], *rows])


def work_lines(plan: Plan) -> list[str]:
    """Parameters, tokens and FLOPs."""
    parameters = ", ".join(f"{name} {number:,}" for name, number in plan.parameters.items() if number)
    tokens = ", ".join(f"{name} {number:,}" for name, number in plan.tokens.items())
    flops = ", ".join(f"{name} {tera(number)}" for name, number in plan.flops.items() if number)
    part, sampled = plan.part, plan.sampled
    lines = [
        f"parameters: {parameters}",
        f"tokens of an optimizer step, at most: {tokens}",
        f"TFLOP of an optimizer step: {tera(sum(plan.flops.values()))} ({flops})",
        f"learned at once: {part.prompts} x {part.prompt} tokens of prompts, {part.rollouts} x {part.completion} of "
        "completions",
    ]
    if sampled is not None:
        lines.append(f"sampled at once: {sampled.rollouts} x {sampled.trace} tokens of traces")
    return lines


def time_lines(plan: Plan, speed: Speed | None) -> list[str]:
    """Seconds, if the speed is known."""
    if speed is None:
        return []
    found = durations(plan.flops, plan.devices, plan.decoding, speed)
    parts = ", ".join(f"{name} {seconds:,.1f}" for name, seconds in found.items())
    return [
        f"seconds of an optimizer step, at most, at {speed.tflops:g} TFLOP/s and {speed.gb:g} GB/s: "
        f"{sum(found.values()):,.1f} ({parts})"
    ]


def largest_line(plan: Plan) -> str:
    """The largest part of the peak, and the settings that reduce it."""
    size = gib(plan.memory[plan.peak][plan.largest])
    return f"largest: {plan.largest}, {size} GiB of the peak in {plan.peak}; to lower it: {KNOBS[plan.largest]}"


def tera(flops: float) -> str:
    """FLOPs in TFLOP, with four digits for small numbers.

    >>> tera(1.2855e16), tera(3.542e14), tera(1.234e9)
    ('12,855', '354.2', '0.001234')
    """
    return f"{flops / 1e12:,.0f}" if flops >= 1e15 else f"{flops / 1e12:.4g}"


def gib(size: int | None) -> str:
    """Bytes in GiB, with two digits for small numbers.

    >>> gib(3 * 2**29), gib(2**20), gib(0), gib(None)
    ('1.50', '0.00098', '-', '-')
    """
    if not size:
        return "-"
    return f"{size / GIB:,.2f}" if size >= GIB / 100 else f"{size / GIB:.2g}"
