"""Gradients of several micro-batches, weighted as those of one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from nrt_lightning.errors import InputError
from nrt_lightning.strategies import Processes
from nrt_lightning.structures import LossOutput, Prompts
from nrt_lightning.training.method import Method

Weigh = Callable[[LossOutput], Tensor]  # from a loss to the scalar whose gradient is taken
Sizes = dict[str, float]
Gradients = list[Tensor | None]  # one for each parameter


@dataclass
class OpenStep:
    """The optimizer step that gradients are being accumulated for.

    A mean has a divisor (tokens, or sequences with tokens) that is known only after the last micro-batch, unless they
    were all sampled together. Until then the gradient of each part of the loss has the divisor that the first
    micro-batch suggests. At the last one the earlier gradients are corrected, by one factor for each part. Parts with
    different factors need gradients of their own until then.

    Args:
        parameters: that are trained.
        micro_batches: of the step.
        sharded: True if no process has whole gradients.

    Example:
        >>> weight = nn.Parameter(torch.tensor(2.0))
        >>> step = OpenStep([weight], micro_batches=2)
        >>> for tokens, last in ((3.0, False), (1.0, True)):  # each micro-batch is the mean of its tokens
        ...     mean = weight * tokens  # a mean with gradient 3, then 1
        ...     out = LossOutput(mean, {}, parts={"loss": mean}, sizes={"loss": torch.tensor(tokens)})
        ...     (step.weigh(out, last=last)["loss"] / 2).backward()  # Lightning divides by the number of micro-batches
        ...     step.go_on()
        >>> weight.grad  # (3 tokens * 3 + 1 token * 1) / 4 tokens
        tensor(2.5000)
    """

    parameters: list[nn.Parameter]
    micro_batches: int
    sharded: bool = False
    divisors: Sizes = field(default_factory=dict)  # that the gradients have
    known: Sizes | None = None  # divisors that are right from the beginning; None: not asked yet
    before: Sizes = field(default_factory=dict)  # of the micro-batches before the newest, summed
    newest: Sizes = field(default_factory=dict)
    apart: dict[str, Gradients] = field(default_factory=dict)  # gradients that are still to be corrected
    corrected: bool = False
    held: Gradients | None = None  # of the parameters, in a copy

    def copy(self) -> OpenStep:
        """A copy with gradients of its own, those of the parameters in `held`."""
        held = [parameter.grad for parameter in self.parameters] if self.held is None else self.held
        apart = {name: cloned(gradients) for name, gradients in self.apart.items()}
        divisors, before, newest = ({**sizes} for sizes in (self.divisors, self.before, self.newest))
        return replace(self, divisors=divisors, before=before, newest=newest, apart=apart, held=cloned(held))

    def go_on(self) -> None:
        """Begin the next micro-batch."""
        self.before = {name: self.before.get(name, 0.0) + size for name, size in self.newest.items()}
        self.newest = {}

    def weigh(
        self, out: LossOutput, *, last: bool, known: Callable[[], dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor]:
        """Scalars whose gradients, added up over the micro-batches, are `micro_batches` times those of one batch.

        Args:
            out: of the micro-batch, or of a part of it; the means are those of the micro-batch.
            last: True for the step's last micro-batch.
            known: gives the divisors of the whole step that are known before, by part.

        Returns:
            The scalars. All but the first are to be kept apart with `take`.
        """
        self.newest = floats({name: out.sizes[name] for name in out.parts})
        if self.known is None:
            self.known = floats(known()) if known is not None else {}
        total = {name: self.before.get(name, 0.0) + size for name, size in self.newest.items()}
        if last:
            self.correct(total)
        weighted = {}
        for name, part in out.parts.items():
            size = self.newest[name]
            if size and name not in self.divisors:
                self.divisors[name] = self.micro_batches * size
            divisor = self.known.get(name) or (total[name] if last else self.divisors.get(name, 0.0))
            weight = self.micro_batches * size / divisor if size else 1.0  # without tokens the gradient is 0
            weighted[name] = part if weight == 1 else part * weight
        return joined(weighted, list(weighted) if last else [name for name in weighted if name in self.known])

    def take(self, losses: dict[str, Tensor], backward: Callable[..., None]) -> Tensor:
        """Take the gradients that are kept apart; return the scalar whose gradient is left to the caller.

        Raises:
            InputError: there are several, of sharded weights.
        """
        (_, rest), *others = losses.items()
        if others and self.sharded:
            raise InputError(
                f"trainer.accumulate_grad_batches is {self.micro_batches}, and the divisors of the loss are known only "
                "after its last micro-batch, which sharded weights do not support. Set data.window to "
                f"{self.micro_batches}, or loss.reduction to SequenceSumConstant."
            )
        for name, loss in others:
            held, kept = [p.grad for p in self.parameters], self.apart.get(name)
            self.put(kept or [None] * len(held))
            backward(loss, retain_graph=True)
            self.apart[name] = [p.grad for p in self.parameters]
            self.put(held)
        return rest

    def put(self, gradients: Gradients) -> None:
        """Set the gradients of all parameters."""
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient

    @torch.no_grad()
    def correct(self, total: Sizes) -> None:
        """Give the gradients so far the divisors of the whole step, once."""
        if self.corrected:
            return
        self.corrected = True
        open_ = [name for name in self.divisors if name not in (self.known or {})]
        factors = {name: self.divisors[name] / total[name] for name in open_}
        together = [factor for name, factor in factors.items() if name not in self.apart]
        if together and together[0] != 1:
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(together[0])
        for name, gradients in self.apart.items():
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                if gradient is not None:
                    own = gradient.mul_(factors.get(name, 1.0))  # without tokens they are 0
                    parameter.grad = own if parameter.grad is None else parameter.grad.add_(own)
        self.apart = {}


def cloned(gradients: Gradients) -> Gradients:
    """Copies of the gradients."""
    return [None if gradient is None else gradient.clone() for gradient in gradients]


def joined(losses: dict[str, Tensor], together: list[str]) -> dict[str, Tensor]:
    """The scalars, with those of the same factor added up; they come first.

    >>> joined({"trace": torch.tensor(1.0), "answer": torch.tensor(2.0), "kl": torch.tensor(4.0)}, ["answer", "kl"])
    {'answer': tensor(6.), 'trace': tensor(1.)}
    """
    if not together:
        return losses
    total = torch.stack([losses[name] for name in together]).sum() if len(together) > 1 else losses[together[0]]
    return {together[0]: total} | {name: loss for name, loss in losses.items() if name not in together}


def floats(sizes: dict[str, Tensor]) -> Sizes:
    """The numbers, read from their device at once."""
    return dict(zip(sizes, torch.stack(list(sizes.values())).tolist(), strict=True)) if sizes else {}


def known_sizes(method: Method, batch: Prompts, processes: Processes) -> dict[str, Tensor]:
    """The divisors of the loss's parts over the whole optimizer step, as far as they are known before its forward pass.

    Which tokens are clipped is not.
    """
    if not batch.step:
        return {}
    sizes = method.loss.sizes(batch.step, processes.mean)
    if batch.trained.old_scores is not None and method.loss.needs_full_batch:
        del sizes["trace"]
    return sizes


def plain(out: LossOutput) -> Tensor:
    """The loss, where gradients of several micro-batches are not added up."""
    return out.loss


def with_value(loss: Tensor, value: Tensor) -> Tensor:
    """A scalar with the gradient of the one and the value of the other."""
    return loss if loss is value else loss + (value - loss).detach()
