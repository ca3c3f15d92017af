"""Training steps in micro-batches under a token budget, which is lowered where memory runs out."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from typing_extensions import override

from nrt_lightning.callbacks.out_of_memory import lengths
from nrt_lightning.data.batches import TextBatches
from nrt_lightning.errors import InputError
from nrt_lightning.evaluation import TextMetric
from nrt_lightning.functional import check_at_least
from nrt_lightning.models import Policy
from nrt_lightning.modules.base import PolicyModule
from nrt_lightning.modules.schedules import Schedule
from nrt_lightning.rollouts import RolloutEngine
from nrt_lightning.structures import Prompts
from nrt_lightning.training.accumulation import known_sizes
from nrt_lightning.training.method import Method
from nrt_lightning.training.micro_batches import Step, learn_at_once, learn_in_parts, split, tokens_of_groups

log = logging.getLogger(__name__)
AUTO = "auto"
KEY = "token_budget"  # in a checkpoint


class BudgetedModule(PolicyModule):
    """Learns from a batch in micro-batches of at most `max_tokens_per_micro_batch` tokens.

    With `auto` there is no limit at first. Where a step of a single process runs out of memory, the limit becomes half
    of what its largest micro-batch held, and the step is done again with the same rollouts and the same dropout; what
    it had added to the gradients is removed. The limit stays for the rest of the run, and is saved.
    """

    method: Method

    def __init__(
        self,
        policy: Policy,
        engine: RolloutEngine,
        optimizer: OptimizerCallable | None,
        schedule: Schedule | None,
        metrics: list[TextMetric] | dict[str, TextMetric] | None,
        text_batches: TextBatches | None,
        max_tokens_per_micro_batch: int | Literal["auto"] | None,
    ) -> None:
        super().__init__(policy, engine, optimizer, schedule, metrics, text_batches)
        if isinstance(max_tokens_per_micro_batch, str) and max_tokens_per_micro_batch != AUTO:
            raise InputError(
                f"max_tokens_per_micro_batch is {max_tokens_per_micro_batch!r}. Set it to a number, to auto or to null."
            )
        self.max_tokens_per_micro_batch = max_tokens_per_micro_batch
        self.token_budget: int | None = None  # tokens of a micro-batch; None: no limit
        if isinstance(max_tokens_per_micro_batch, int):
            check_at_least("max_tokens_per_micro_batch", max_tokens_per_micro_batch, 1)
            self.token_budget = max_tokens_per_micro_batch
        self._cleared = self._taken = False  # the gradients before, and the backward pass of, this training step

    def learn(self, batch: Prompts) -> Step:
        """Scores, credit and loss, in micro-batches if the budget asks for them.

        The gradient of the loss is left to the caller; `backward` does nothing where it has been taken.
        """
        self.begin_micro_batch()
        auto = self.max_tokens_per_micro_batch == AUTO and self.processes.count == 1
        step, counts = self.learn_until_it_fits(batch) if auto else self.learn_within_budget(batch)
        if counts:
            self.log_scalars(counts, "train", len(batch.trained))
        return step

    def learn_within_budget(self, batch: Prompts) -> tuple[Step, dict[str, Tensor]]:
        """The step, without the gradient of its last micro-batch, and the numbers of micro-batches to log."""
        limit, processes = self.token_budget, self.processes
        weigh = partial(self.weighed, known=partial(known_sizes, self.method, batch, processes))
        if limit is None:
            return learn_at_once(self.method, batch, processes, weigh), {}
        parts = split(batch, limit, processes)
        over = float(sum(count > limit for count in tokens_of_groups(batch.trained)))
        counts = {"micro_batches": torch.tensor(float(len(parts))), "groups_over_limit": torch.tensor(over)}
        return learn_in_parts(self.method, batch, parts, processes, self.backward_part, weigh), counts

    def learn_until_it_fits(self, batch: Prompts) -> tuple[Step, dict[str, Tensor]]:
        """The step with its gradient, done again under a lower budget each time that memory runs out."""
        before = self.accumulated()
        while True:
            try:
                step, counts = self.learn_within_budget(batch)
                self.backward_part(step.loss)
                break
            except torch.OutOfMemoryError as error:
                if not self.lower_budget(batch, error):
                    raise
            # Outside of the handler, whose traceback holds the activations.
            self.restore(before)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.seed_step()
        step.loss, self._taken = step.loss.detach(), True
        return step, {"micro_batches": torch.tensor(1.0), "groups_over_limit": torch.tensor(0.0)} | counts

    def lower_budget(self, batch: Prompts, error: BaseException) -> bool:
        """Halve the budget of a batch that ran out of memory; False if its groups are alone already."""
        tokens = tokens_of_groups(batch.trained)
        limit = sum(tokens) if self.token_budget is None else self.token_budget
        parts = split(batch, limit, self.processes)
        if all(len(part.prompts) == 1 for part in parts):
            return False
        largest = max(sum(tokens[group] for group in part.prompts.tolist()) for part in parts if len(part.prompts) > 1)
        self.token_budget = largest // 2
        log.warning(
            "step %d ran out of memory%s in a micro-batch of %d tokens (%s). max_tokens_per_micro_batch=auto is now "
            "%d, and the step is done again with the same rollouts.",
            self.trainer.global_step, lengths(batch), largest, " ".join(str(error).split())[:120], self.token_budget,
        )  # fmt: skip
        return True

    @override
    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        taken, self._taken = self._taken, False
        if loss.requires_grad or not taken:  # a loss of a subclass may have more terms
            super().backward(loss, *args, **kwargs)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.max_tokens_per_micro_batch == AUTO:
            checkpoint["nrt_lightning"][KEY] = self.token_budget

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        found = checkpoint.get("nrt_lightning", {}).get(KEY)
        if found is not None and self.max_tokens_per_micro_batch == AUTO:
            if not isinstance(found, int) or found < 1:
                raise InputError(f"The checkpoint is damaged: its {KEY} is {found!r}. Give another checkpoint.")
            self.token_budget = found
            if self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
                log.warning("max_tokens_per_micro_batch=auto goes on with %d, found before the checkpoint.", found)
