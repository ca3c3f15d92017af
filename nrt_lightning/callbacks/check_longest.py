"""A step with the longest rows before the first one, which changes nothing: memory runs out at once or not at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from typing_extensions import override

from nrt_lightning.callbacks.on_policy_rollout import steps_within
from nrt_lightning.callbacks.out_of_memory import advice, lengths
from nrt_lightning.data import QADataModule
from nrt_lightning.errors import InputError
from nrt_lightning.models.sharding.memory import peak_memory, reset_peak_memory
from nrt_lightning.rollouts import Generations, assemble, respond, trace_request
from nrt_lightning.rollouts.sampled_tokens import generate
from nrt_lightning.structures import Credit, PolicyAnswers, Prompts, TraceReward, WindowStep
from nrt_lightning.training.method import Method
from nrt_lightning.training.sampling import score_window

SIDE = 128  # of small parameters, on which the optimizer's memory is measured


class CheckLongest(Callback):
    """Runs one training step with the longest rows before the first step, and undoes it.

    The traces are as long as `sampling.max_trace_tokens` allows, and memory is held for the optimizer's state. Weights,
    optimizer, random state, metrics and logs stay as they are; no signal is called, no filter and no callback sees the
    step. A budget of tokens that is `auto` and had to be lowered stays lowered. `nrt-lightning fit --check_longest`
    adds this callback.

    Raises:
        InputError: memory runs out, or the data is not of a `QADataModule`.
    """

    @override
    def on_train_start(self, trainer: Any, pl_module: LightningModule) -> None:
        prompts = longest_rows(trainer.datamodule).to(pl_module.device)
        reset_peak_memory(pl_module.device)
        try:
            with untouched(trainer, pl_module), state_to_come(trainer):
                batch = dry_step(trainer, pl_module, prompts)
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"check_longest: a step with the longest rows runs out of memory{lengths(prompts.micro_batches()[0])}: "
                f"{advice(error, pl_module)}"
            ) from error
        peak = peak_memory(pl_module.device) / 2**30
        rank_zero_info(f"check_longest: a step{lengths(batch)} fits. The peak of memory is {peak:.2f} GiB.")


def longest_rows(data: Any) -> Prompts:
    """The longest training rows, as many as a window has, the longest first."""
    if not isinstance(data, QADataModule):
        raise InputError(
            f"check_longest finds the longest rows of a QADataModule, and the data is a {type(data).__name__}. Leave "
            "check_longest out."
        )
    rows = data.encoded["train"]
    order = (rows.prompts.lengths() + rows.answers.lengths()).argsort(descending=True).tolist()
    chosen = [rows[order[place % len(order)]] for place in range(data.batch_size * data.window)]
    return rows.collate(chosen, WindowStep(0, data.window, 0, data.window_epochs))


def nothing(*args: Any, **settings: Any) -> None:
    """In place of a method that logs."""


def private(pl_module: Any) -> dict[str, Any]:
    """What a module notes for itself of the step that it is in."""
    return {name: value for name, value in vars(pl_module).items() if name.startswith("_")}


@contextmanager
def untouched(trainer: Any, pl_module: Any) -> Iterator[None]:
    """Let a step leave neither gradients, nor logs, nor random numbers behind."""
    muted = {"log": nothing, "log_dict": nothing, "backward_part": torch.Tensor.backward}  # without hooks of callbacks
    before = private(pl_module)
    vars(pl_module).update(muted)
    try:
        with isolate_rng():
            yield
    finally:
        for name in {*muted, *private(pl_module)} - {*before}:
            vars(pl_module).pop(name)
        vars(pl_module).update(before)
        for parameter in pl_module.parameters():
            parameter.grad = None


@contextmanager
def state_to_come(trainer: Any) -> Iterator[None]:
    """Hold as much memory as the optimizer's state will take, unless it is there."""
    held = []
    for optimizer in trainer.optimizers:
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        if not optimizer.state and trained:
            count = sum(getattr(p, "_local_tensor", p).numel() for p in trained)
            size = int(count * bytes_per_weight(optimizer, trained[0].dtype))
            held.append(torch.empty(size, dtype=torch.uint8, device=trained[0].device))
    yield
    held.clear()


def bytes_per_weight(optimizer: Any, dtype: torch.dtype) -> float:
    """Bytes of an optimizer's state per weight; 0 if an optimizer of its class cannot be tried on a CPU."""
    parameter = nn.Parameter(torch.zeros(SIDE, SIDE, dtype=dtype))
    parameter.grad = torch.zeros_like(parameter)
    kind = type(optimizer)
    accepted = signature(kind).parameters
    try:
        small = kind([parameter], **{name: value for name, value in optimizer.defaults.items() if name in accepted})
        small.step()
    except Exception:  # optimizers of others raise many kinds
        return 0.0
    values = [value for value in small.state[parameter].values() if torch.is_tensor(value) and value.dim()]
    return sum(value.numel() * value.element_size() for value in values) / SIDE**2


def dry_step(trainer: Any, pl_module: Any, prompts: Prompts) -> Prompts:
    """Sample a window, and take the gradient of its longest micro-batch, which is returned."""
    method, batch = getattr(pl_module, "method", None), prompts.micro_batches()[0]
    if isinstance(method, Method):
        with trainer.precision_plugin.forward_context():
            batch = longest_rollouts(method, prompts)
            score_window(method, [batch], steps=steps_within(trainer, prompts.window))
        batch.trained.credit = any_credit(batch)
    with trainer.precision_plugin.train_step_context():
        out = pl_module.training_step(batch, 0)
    loss = out["loss"] if isinstance(out, dict) else out
    pl_module.backward(loss)
    return batch


@torch.no_grad()
def longest_rollouts(method: Method, prompts: Prompts) -> Prompts:
    """The first micro-batch of a window whose traces, and written answers, have all tokens that they may have."""
    sampling, policy = method.sampling, method.policy
    request = trace_request(policy, prompts, sampling, seed=0)
    request.stop_ids, request.stop_text, request.logprobs = [], None, method.needs_sampling_logprobs
    traces, written = sampling.max_trace_tokens, sampling.max_answer_tokens if method.needs_policy_answers else 0
    request.max_new_tokens = traces + written
    if method.engine.own_weights:  # it samples elsewhere
        ids = torch.zeros(len(prompts) * sampling.group_size, traces + written, dtype=torch.long, device=policy.device)
        found = Generations(ids, ids == 0, ids[:, 0] != 0, torch.zeros(ids.shape, device=policy.device))
    else:
        with policy.gathered():
            found = generate(method.engine, policy, request)
    batch = prompts.micro_batches()[0]
    found = found.select(0, len(batch) * sampling.group_size)
    logprobs = None if found.logprobs is None or not request.logprobs else found.logprobs[:, :traces]
    ids, mask = found.token_ids[:, :traces], found.token_mask[:, :traces]
    cut = dataclasses.replace(found, token_ids=ids, token_mask=mask, logprobs=logprobs)
    batch.rollouts = assemble(batch, cut, policy.markup)
    batch.rollouts.segments.marker_emitted = torch.ones_like(batch.rollouts.segments.marker_emitted)
    batch.rollouts.temperature = sampling.temperature or 1.0
    if written:
        answers = found.token_ids[:, traces:], found.token_mask[:, traces:]
        batch.rollouts.policy_answers = PolicyAnswers(*answers, ended=found.stopped)
    if method.train_response:
        batch.responses = respond(batch.rollouts)
    return batch


def any_credit(batch: Prompts) -> Credit:
    """Credit that lets every token carry a loss, without rewards."""
    trained = batch.trained
    answers: Tensor = trained.segments.answer_mask.float()  # [N, C]
    ones = answers.new_ones(len(trained))
    weights = trained.answer_mask[trained.group_ids].float()  # [N, T]
    return Credit(TraceReward(ones, weights), ones, answers)
