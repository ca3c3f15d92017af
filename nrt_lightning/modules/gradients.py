"""The gradients of an optimizer step: its own alone, and those of one batch, whatever steps the optimizer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from nrt_lightning.errors import InputError
from nrt_lightning.modules.logged import LoggedModule
from nrt_lightning.structures import LossOutput
from nrt_lightning.training.accumulation import OpenStep

log = logging.getLogger(__name__)


class GradientsOfOneStep(LoggedModule):
    """A step has the gradients of its own micro-batches alone, added up as if these were one batch.

    They are cleared where the first of them is taken, each time that the optimizer calls its closure (LBFGS calls it
    often), and after the step, so that they take no memory during sampling. Lightning takes no step where the last
    micro-batch of an accumulation is skipped (no row fits). Its other micro-batches then belong to the next step.
    """

    _first = True  # this is the first micro-batch of its step
    _cleared = False  # in this training step, before the gradient of its first part
    _open: OpenStep | None = None
    _place: tuple[int, int, int] | None = None  # trainer, optimizer steps and micro-batches that `_open` is at
    _counted: tuple[int, int] | None = None  # trainer and optimizer step that `after_optimizer_step` was called for
    _noticed: Sequence[Any] = ()  # hooks of the optimizers

    def begin_micro_batch(self) -> None:
        """Begin a micro-batch of an optimizer step.

        Raises:
            InputError: the optimizer asks for the gradients of an accumulation again.
        """
        self._first, self._cleared = True, False
        if self._trainer is None or self.trainer.accumulate_grad_batches == 1:
            self._open = None
            return
        count, ready = self.trainer.accumulate_grad_batches, self.trainer.fit_loop.epoch_loop.batch_progress.total.ready
        before, self._place = self._place, (id(self.trainer), self.trainer.global_step, ready)
        if self._open is None or before is None or before[:2] != self._place[:2]:
            policy: Any = self.policy
            trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
            self._open = OpenStep(trained, count, policy.sharding.active)
            self.clear_earlier()
        elif before == self._place:
            raise InputError(
                f"trainer.accumulate_grad_batches is {count}, and the optimizer "
                f"{type(self.trainer.optimizers[0]).__name__} calls its closure several times, which takes the "
                "gradient of the last micro-batch alone anew. Set accumulate_grad_batches to 1, with a larger "
                "data.batch_size."
            )
        else:
            self._first = False
            self._open.go_on()

    def accumulated(self) -> OpenStep | None:
        """A copy of what earlier micro-batches of this optimizer step have left; None without accumulation."""
        self.clear_earlier()
        return None if self._open is None else self._open.copy()

    def restore(self, before: OpenStep | None) -> None:
        """Go back to what `accumulated` returned."""
        if before is None:
            self.trainer.optimizers[0].zero_grad()
        else:
            self._open = before.copy()
            self._open.put(self._open.held or [])
            self._open.held = None

    def weighed(self, out: LossOutput, known: Callable[[], dict[str, Tensor]] | None = None) -> Tensor:
        """A scalar whose gradient is to be taken, of a micro-batch or of a part of it.

        Added up over `accumulate_grad_batches`, the gradients are those of one batch, at the end of an epoch too, where
        Lightning steps with fewer.

        Args:
            out: of the micro-batch or part.
            known: gives the divisors of the whole step that are known before its end.
        """
        if self._open is None:
            return out.loss
        losses = self._open.weigh(out, last=not self.trainer.fit_loop._should_accumulate(), known=known)
        if len(losses) > 1:
            self.clear_earlier()
        return self._open.take(losses, self.backward_part)

    def clear_earlier(self) -> None:
        """Clear the gradients of an earlier step, before the first of this one is taken."""
        if self._first and not self._cleared:
            self.trainer.optimizers[0].zero_grad()
            self._cleared = True

    def backward_part(self, loss: Tensor, **settings: Any) -> None:
        """Run the backward pass of a micro-batch. Lightning runs it for the loss that the training step returns."""
        self.clear_earlier()
        self.trainer.strategy.backward(loss / self.trainer.accumulate_grad_batches, None, **settings)

    def stepped(self, *_: Any) -> None:
        """Call `after_optimizer_step`, once in a step."""
        step = self.trainer.global_step + 1  # the trainer counts the step after it
        if self._counted != (id(self.trainer), step):
            self._counted = (id(self.trainer), step)
            self.after_optimizer_step(step)

    def after_optimizer_step(self, step: int) -> None:
        """Called after optimizer step number `step`, counted from 1, whoever took it."""

    @override
    def on_train_start(self) -> None:
        """Notice the optimizer's steps, also those of an `optimizer_step` of the user's own."""
        self._counted = None
        for handle in self._noticed:
            handle.remove()
        hooks = (getattr(optimizer, "register_step_post_hook", None) for optimizer in self.trainer.optimizers)
        self._noticed = [register(self.stepped) for register in hooks if register is not None]

    @override
    def on_train_end(self) -> None:
        """Leave the optimizer as it was, and say what it did not step with."""
        if self._open is not None and self._place and self._place[:2] == (id(self.trainer), self.trainer.global_step):
            log.warning("training ended before the optimizer step that the last micro-batches were accumulated for.")
        for handle in self._noticed:
            handle.remove()
        self._noticed = []

    @override
    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Step and free the gradients, so that they take no memory during sampling."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.stepped()
        optimizer.zero_grad()

    @override
    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        """Clear gradients, unless `backward_part` did. Lightning calls it after the training step, at the first batch
        that is accumulated."""
        if self._first and not self._cleared:
            optimizer.zero_grad()
        self._cleared = False
