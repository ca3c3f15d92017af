"""When gradients are cleared, whatever steps the optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from nrt_lightning.modules.fewer_moves import FewerMoves


class GradientsOfOneStep(FewerMoves):
    """A step has the gradients of its own micro-batches alone.

    They are cleared where the first of them is taken, each time that the optimizer calls its closure (LBFGS calls it
    often), and after the step, so that they take no memory during sampling.
    """

    _cleared = False  # in this training step, before the gradient of its first part

    def backward_part(self, loss: Tensor) -> None:
        """Run the backward pass of a micro-batch. Lightning runs it for the loss that the training step returns."""
        accumulate = self.trainer.accumulate_grad_batches
        if not self._cleared and self.trainer.fit_loop.epoch_loop.batch_idx % accumulate == 0:
            self.trainer.optimizers[0].zero_grad()
            self._cleared = True
        self.trainer.strategy.backward(loss / accumulate, None)

    @override
    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Step and free the gradients, so that they take no memory during sampling."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        optimizer.zero_grad()

    @override
    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        """Clear gradients, unless `backward_part` did. Lightning calls it after the training step, at the first batch
        that is accumulated."""
        if not self._cleared:
            optimizer.zero_grad()
        self._cleared = False
