"""`QADataModule`: reads, checks and encodes all rows before the first step, then yields them window by window."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any, cast

import lightning as L
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from nrt_lightning.data.arguments import Source
from nrt_lightning.data.datamodule_checks import check_settings, check_splits, checked_order, load_tokenizer
from nrt_lightning.data.default_template import fit_together, prompt_example
from nrt_lightning.data.encoding import EncodedRows, PromptEncoder
from nrt_lightning.data.formats import RowFormat
from nrt_lightning.data.sampler import EvaluationSampler, MicroBatch, WindowSampler, shuffled
from nrt_lightning.data.splits import DATASET_SPLITS, Splits, as_source, check_format, shared_rows
from nrt_lightning.data.templates import PromptTemplate
from nrt_lightning.errors import InputError
from nrt_lightning.structures import Prompts, WindowStep

log = logging.getLogger(__name__)

STAGE_SPLITS = {"fit": ("train", "val", "test"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}
OPTIONAL = {("fit", "val"), ("fit", "test")}  # test rows are read before training, to find faults and shared rows


class QADataModule(L.LightningDataModule):
    """Question-answer rows for training, validation, test and prediction.

    `setup` reads, checks and encodes all rows before any compute. A `WindowSampler` yields the training batches,
    starting at the trainer's count of micro-batches: a resumed run sees exactly the remaining ones.

    Args:
        train: training rows: a file, a directory, a hub name or a source class; in Python also a list of dicts or a
            `datasets.Dataset`.
        val: validation rows. A directory or hub name is read from its split `validation`.
        test: test rows. A directory or hub name is read from its split `test`.
        predict: rows to predict, with or without answers. A directory or hub name is read from its split `test`.
        format: columns of question and answer, for sources without a format; null for `QuestionAnswer()`.
        template: turns a conversation into a prompt and holds the system prompt; null for the tokenizer's chat
            template, or without one for a plain text that asks for reasoning.
        batch_size: prompts per micro-batch and process.
        window: micro-batches per rollout window: traces are sampled for `batch_size * window` prompts at once.
        window_epochs: passes over the rollouts of a window before the next window is sampled.
        eval_batch_size: prompts per batch in validation, test and prediction; `batch_size` by default.
        max_prompt_tokens: maximum length of a prompt, with special tokens. Longer rows are dropped, never cut.
        max_answer_tokens: maximum length of an answer, with the end token. Longer rows are dropped, never cut.
        max_dropped_share: largest fraction of the rows that may be dropped; more is an error.
        val_rows: rows of `train` to use for validation instead, chosen by `seed`; below 1 a fraction of them. Only
            without `val`.
        max_train_rows: use only the first rows of `train`, not counting `val_rows` and `test_rows`; null for all.
        max_val_rows: use only the first rows of `val`; null for all.
        max_test_rows: use only the first rows of `test`; null for all.
        max_predict_rows: use only the first rows of `predict`; null for all.
        seed: seed of the shuffling and of the choice of `val_rows`.
        passes: passes over the training rows per epoch of the trainer.
        num_workers: processes that collate batches; 0 collates in the training process, which is rarely slower.
        tokenizer: directory or hub name of a tokenizer; null for the tokenizer of the policy.
        test_rows: rows of `train` to use for testing instead, as `val_rows`; only without `test`.

    Raises:
        InputError: a setting, a file, a row or the tokenizer cannot be used.
    """

    def __init__(
        self,
        train: Source = None,
        val: Source = None,
        test: Source = None,
        predict: Source = None,
        format: RowFormat | None = None,
        template: PromptTemplate | None = None,
        batch_size: int = 4,
        window: int = 1,
        window_epochs: int = 1,
        eval_batch_size: int | None = None,
        max_prompt_tokens: int = 1024,
        max_answer_tokens: int = 512,
        max_dropped_share: float = 0.05,
        val_rows: int | float = 0,
        max_train_rows: int | None = None,
        max_val_rows: int | None = None,
        max_test_rows: int | None = None,
        max_predict_rows: int | None = None,
        seed: int = 0,
        passes: int = 1,
        num_workers: int = 0,
        tokenizer: str | None = None,
        test_rows: int | float = 0,
    ) -> None:
        super().__init__()
        given = {"train": train, "val": val, "test": test, "predict": predict}
        self.sources = {split: as_source(value, split) for split, value in given.items()}
        limits = (max_train_rows, max_val_rows, max_test_rows, max_predict_rows)
        self.max_rows = dict(zip(DATASET_SPLITS, limits, strict=True))
        self.format = format
        self.template = self._given_template = template  # null becomes the default in `setup`
        self.batch_size, self.window, self.window_epochs = batch_size, window, window_epochs
        self.passes, self.seed, self.num_workers, self.tokenizer = passes, seed, num_workers, tokenizer
        self.eval_batch_size = batch_size if eval_batch_size is None else eval_batch_size
        self.max_prompt_tokens, self.max_answer_tokens = max_prompt_tokens, max_answer_tokens
        self.max_dropped_share = max_dropped_share
        self.val_rows, self.test_rows = val_rows, test_rows
        self.encoded: dict[str, EncodedRows] = {}
        self._encoded_with: PreTrainedTokenizerBase | None = None
        self._sampler: WindowSampler | None = None  # of the current training dataloader
        self._order: dict[str, Any] = {}  # what fixes the micro-batches
        self._resumed: dict[str, Any] = {}  # state of the checkpoint
        check_settings(vars(self), self.max_rows)
        check_splits(self.sources, {"val": val_rows, "test": test_rows})
        check_format(format, self.sources)

    def setup(self, stage: str | None = None) -> None:
        """Read, check and encode the splits of the stage; without a stage, all that are given."""
        policy = getattr(getattr(self.trainer, "lightning_module", None), "policy", None)
        tokenizer = self._find_tokenizer(policy)
        self.template = fit_together(self._given_template, tokenizer, policy)
        limits = (self.max_prompt_tokens, self.max_answer_tokens, self.max_dropped_share)
        encoder = PromptEncoder(tokenizer, self.template, *limits)
        if encoder.tokenizer is not self._encoded_with:
            self.encoded, self._encoded_with = {}, encoder.tokenizer
        new = []
        for split in STAGE_SPLITS.get(stage or "", DATASET_SPLITS):
            given = self._splits.given(split)
            if given and split not in self.encoded:
                self.encoded[split] = encoder.encode(self._splits.rows(split), split)
                new.append(split)
            elif not given and stage is not None and (stage, split) not in OPTIONAL:
                raise InputError(f"data.{split} is not set. Set it to a file, a directory, a hub name or a source.")
        self._report(new, stage)

    def example(self) -> str:
        """The template, and the prompt and the answer of the first encoded row, as a text to read."""
        row = next(iter(self.encoded.values())).rows[0]
        return prompt_example(cast(PromptTemplate, self.template), row, cast(Any, self._encoded_with))

    def _report(self, new: list[str], stage: str | None) -> None:
        """Log an example of the prompts before training, and warn of rows that stand in training and evaluation."""
        if stage == "fit" and new:
            rank_zero_info(self.example())
        rows = {split: encoded.rows for split, encoded in self.encoded.items()}
        for message in shared_rows(rows, new) if self.trainer is None or self.trainer.is_global_zero else ():
            log.warning("%s", message)

    def train_dataloader(self) -> DataLoader[Any]:
        """The micro-batches of the windows, from the trainer's position on."""
        trainer: Any = self.trainer
        start, limit, ranks = 0, 1.0, {"num_replicas": 1, "rank": 0}
        if trainer is not None:
            if (count := trainer.overfit_batches) > 0:
                raise InputError(
                    f"trainer.overfit_batches={count} replaces the window sampler. Set data.max_train_rows."
                )
            start = self._processed(trainer)
            limit = 1.0 if trainer.fast_dev_run else trainer.limit_train_batches
            ranks = trainer.distributed_sampler_kwargs or ranks
        dataset = self._dataset("train")
        self._sampler = WindowSampler(
            len(dataset), self.batch_size, self.window, self.seed, self.passes, start=start, limit=limit,
            window_epochs=self.window_epochs, **ranks
        )  # fmt: skip
        self._order = checked_order(self._resumed if start > 0 else {}, self._sampler.order, dataset.rows)
        return DataLoader(dataset, batch_size=None, sampler=self._sampler, num_workers=self.num_workers)

    def replacement_rows(self, count: int, *key: int | str) -> Prompts:
        """Additional training rows, different ones on every process.

        A hash of the key selects them. They change nothing about the micro-batches, and a resumed run gets the same.

        Args:
            count: rows for this process.
            key: position in the run, such as its micro-batches before this one.
        """
        dataset, trainer = self._dataset("train"), cast(Any, self.trainer)
        order = shuffled(len(dataset), self.seed, "further", *key).tolist()
        indices = range(trainer.global_rank, count * trainer.world_size, trainer.world_size)
        return dataset.collate([dataset[order[index % len(order)]] for index in indices])

    def next_window(self, position: int) -> tuple[Prompts, int]:
        """The prompts of the window that follows the one at this position, before training reaches it.

        Args:
            position: of the current window's first micro-batch in the run, over all epochs.

        Returns:
            The prompts on this process, and the position of their window.
        """
        assert self._sampler is not None, "training has not begun"
        following = position + self._sampler.window_steps
        rows, first = self._sampler.rows_at(following), WindowStep(0, self.window, 0, self.window_epochs)
        return self._dataset("train")[MicroBatch(rows, first)], following

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """The validation rows in order; an empty list if there are none."""
        return self._in_order("val", even=True) if "val" in self.encoded else []

    def test_dataloader(self) -> DataLoader[Any]:
        """The test rows in order."""
        return self._in_order("test", even=True)

    def predict_dataloader(self) -> DataLoader[Any]:
        """The prediction rows in order."""
        return self._in_order("predict", even=False)

    def state_dict(self) -> dict[str, Any]:
        """What fixes the micro-batches (compared on resume), and how many have been processed."""
        return self._order | {"processed": self._processed(self.trainer)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the checkpoint's state; `train_dataloader` compares its order settings."""
        self._resumed = state_dict

    def _processed(self, trainer: Any) -> int:
        """Micro-batches processed. A trainer that counts its steps by the dataloader makes it after it has restored
        this object and before it restores its loops.
        """
        loops = trainer.fit_loop.epoch_loop.batch_progress.total.processed
        return max(loops, self._resumed.get("processed", 0) if trainer.ckpt_path else 0)

    @cached_property
    def _splits(self) -> Splits:
        held_out = {"val": self.val_rows, "test": self.test_rows}
        return Splits(self.sources, self.format, self.max_rows, held_out, self.seed)

    @cached_property
    def _loaded_tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(str(self.tokenizer))

    def _find_tokenizer(self, policy: Any) -> PreTrainedTokenizerBase:
        if self.tokenizer is None and policy is None:
            raise InputError("data.tokenizer is null and the model has no `policy`. Set it to a directory or hub name.")
        return policy.tokenizer if self.tokenizer is None else self._loaded_tokenizer

    def _dataset(self, split: str) -> EncodedRows:
        if split not in self.encoded:
            raise InputError(f"The {split} rows have not been read. Set data.{split} and call `setup` first.")
        return self.encoded[split]

    def _in_order(self, split: str, *, even: bool) -> DataLoader[Any]:
        dataset, trainer = self._dataset(split), cast(Any, self.trainer)
        ranks = trainer.distributed_sampler_kwargs if even and trainer is not None else None
        sampler = EvaluationSampler(dataset, shuffle=False, **ranks) if ranks else None
        size, workers = self.eval_batch_size, self.num_workers
        return DataLoader(dataset, batch_size=size, sampler=sampler, collate_fn=dataset.collate, num_workers=workers)
