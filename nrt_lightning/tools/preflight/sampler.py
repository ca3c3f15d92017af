"""Samples groups of traces of a policy as it is, on the device and in the precision of the trainer."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

import lightning as L

from nrt_lightning.errors import InputError
from nrt_lightning.evaluation.probe import Probe, probe
from nrt_lightning.models import Policy
from nrt_lightning.randomness import counter_seed, run_seed
from nrt_lightning.rollouts import Generations
from nrt_lightning.strategies import gather_objects
from nrt_lightning.structures import Prompts
from nrt_lightning.tools.preflight.examples import GroupExample, PromptExample, group_examples, prompt_examples
from nrt_lightning.tools.preflight.measures import Measures, measure
from nrt_lightning.tools.preflight.progress import Progress
from nrt_lightning.tools.preflight.report import first_figures
from nrt_lightning.tools.preflight.sample import AGGREGATORS, Sample, sample_of
from nrt_lightning.tools.preflight.setup import Setup
from nrt_lightning.training.method import Method

EXAMPLES = 2  # prompts and groups that are shown


class PreflightModule(L.LightningModule):
    """Looks at the first validation rows; `samples` then holds what was seen.

    Args:
        module: an `NRTModule`; its policy, engine, sampling and rewards are looked at.
        rows: validation rows that each process looks at.
        chunk: rows sampled at once.
        shown: print prompts, traces, first figures and progress as they come.
        bar: show the progress as a bar.
    """

    def __init__(self, module: Any, rows: int, chunk: int, *, shown: bool = True, bar: bool = False) -> None:
        super().__init__()
        self.module = module
        self.rows = rows
        self.chunk = chunk
        self.shown, self.bar = shown, bar
        self.method: Method = module.method
        own = self.method.aggregator
        self.aggregators = [*AGGREGATORS, *([] if own in AGGREGATORS else [own])]
        self.samples: list[Sample] = []
        self.prompts: list[PromptExample] = []
        self.groups: list[GroupExample] = []
        self.progress = Progress(rows, chunk, self.method.sampling.group_size, shown=False, bar=False)
        self._taken = 0  # rows
        self._last: Generations | None = None  # traces of the last row, for one that comes alone
        self._alone: tuple[Prompts, Probe] | None = None  # the first row, if it came alone

    @property
    def policy(self) -> Policy:
        """The policy; its tokenizer is that of the data."""
        return self.module.policy

    def configure_model(self) -> None:
        """Read the weights."""
        self.module.configure_model()

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """As the module does it."""
        return self.module.on_before_batch_transfer(batch, dataloader_idx)

    def on_validation_start(self) -> None:
        """Start the clock."""
        loader: Any = self.trainer.val_dataloaders
        rows, dataset = self.rows, getattr(loader, "dataset", None)
        if isinstance(dataset, Sized):
            rows = min(rows, -(-len(dataset) // self.trainer.world_size))
        shown, traces = self.shown and self.trainer.is_global_zero, self.method.sampling.group_size
        self.progress = Progress(rows, min(self.chunk, rows), traces, shown=shown, bar=self.bar)

    def on_validation_end(self) -> None:
        """Remove the bar."""
        self.progress.close()

    def validation_step(self, batch: Prompts | None, batch_idx: int) -> None:
        """Look at the rows of this batch that are still wanted."""
        if batch is None:  # no row fits
            return
        wanted = min(len(batch), self.rows - self._taken)
        if wanted > 0 and len(self.prompts) < EXAMPLES:
            for example in prompt_examples(self.policy, batch, EXAMPLES - len(self.prompts)):
                self.prompts.append(example)
                self.progress.say(f"Prompt {len(self.prompts)}, {example}\n")
        for start in range(0, wanted, self.chunk):
            part = batch.slice(start, min(start + self.chunk, wanted))
            self.look(part, counter_seed(run_seed(), self._taken, 0, self.global_rank, "preflight"))

    def look(self, part: Prompts, seed: int) -> None:
        """Look at some rows. Each borrows the traces of another; the first row waits if it comes alone."""
        group_size, first = self.method.sampling.group_size, not self.samples
        seen = probe(self.method, part, seed, self.progress.tokens)
        self._taken += len(part)
        traces, others = seen.traces, self._last
        self._last = traces.select(len(traces) - group_size, len(traces))
        if len(part) > 1:
            others = traces.apply(lambda tensor: tensor.roll(group_size, dims=0))
        if self._alone is not None:
            self.keep(*self._alone, traces.select(0, group_size))
            self._alone = None
        if others is None:
            self._alone = part, seen
        else:
            self.keep(part, seen, others)
        if first and self.samples:
            figures = self.measures_of(Sample.joined(self.samples))
            self.progress.say(first_figures(figures, self.progress.left()))
            self.progress.say("\n".join(["", *(f"{group}\n" for group in self.groups)]))

    def keep(self, part: Prompts, seen: Probe, others: Generations) -> None:
        """Keep the figures of some rows, and examples of the first ones."""
        found = sample_of(self.method, part, seen, others, self.aggregators)
        self.samples.append(found.to("cpu"))
        if len(self.groups) < EXAMPLES:
            self.groups += group_examples(self.policy, part, seen, found.reward, EXAMPLES - len(self.groups))
        self.progress.looked(len(part))

    def gathered(self) -> Sample:
        """All samples, of all processes, on the CPU.

        Raises:
            InputError: there are none.
        """
        samples: list[Sample] = [sample for part in gather_objects(self.samples) for sample in part]
        if not samples:
            raise InputError("preflight found fewer than 2 rows. Set data.val, or data.train with more rows.")
        return Sample.joined(samples)

    def measures(self) -> Measures:
        """The figures of all processes."""
        return self.measures_of(self.gathered())

    def measures_of(self, sample: Sample) -> Measures:
        """The figures of a sample."""
        template = getattr(getattr(self.trainer, "datamodule", None), "template", None)
        setup = Setup.of(self.method, self.aggregators, template)
        return measure(sample, setup, self.policy.tokenizer)
