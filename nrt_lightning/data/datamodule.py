"""The data of a run: read, checked and encoded before the first step, then given out window by window."""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

import lightning as L
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from nrt_lightning.data.datamodule_checks import check_resumed, check_settings, check_trainer
from nrt_lightning.data.encoding import EncodedRows, PromptEncoder
from nrt_lightning.data.formats import QuestionAnswer, RowFormat
from nrt_lightning.data.sampler import EvaluationSampler, MicroBatch, WindowSampler, shuffled
from nrt_lightning.data.sources import FileSource, QASource
from nrt_lightning.data.templates import PlainTemplate, PromptTemplate
from nrt_lightning.errors import InputError
from nrt_lightning.structures import Prompts, Row, WindowStep

DATASET_SPLITS = {"train": "train", "val": "validation", "test": "test", "predict": "test"}
STAGE_SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}


class QADataModule(L.LightningDataModule):
    """Question-answer rows for training, validation, test and prediction.

    All rows are read, checked and encoded in `setup`, before any compute. Training batches come from a `WindowSampler`,
    whose position follows the trainer's count of micro-batches: a resumed run sees exactly the remaining ones.

    Args:
        train: rows to train on: a file, a directory, a hub name, or any source by class.
        val: rows to validate on. A text means the split `validation` where it names a directory or the hub.
        test: rows to test on; a text means the split `test` there.
        predict: rows to predict on, answers optional; a text means the split `test` there.
        format: which columns hold question and answer, for sources given as text; `QuestionAnswer()` by default.
        template: how a conversation becomes a prompt, and its system prompt; `PlainTemplate()` by default.
        batch_size: prompts of one micro-batch on one rank.
        window: micro-batches of one rollout window: traces are sampled for `batch_size * window` prompts at once.
        window_epochs: how often the rollouts of a window are gone through before others are sampled.
        eval_batch_size: prompts of a batch in validation, test and prediction; as `batch_size` by default.
        max_prompt_tokens: longest prompt, with all its special tokens. Longer rows are dropped, never cut.
        max_answer_tokens: longest answer, with its end token. Longer rows are dropped, never cut.
        max_dropped_share: refuse data of which a larger share would be dropped.
        val_rows: rows taken out of `train` for validation, chosen by `seed`, where no `val` is given.
        max_train_rows: use only the first rows of `train` (`val_rows` not counted); all by default.
        max_val_rows: use only the first rows of `val`.
        max_test_rows: use only the first rows of `test`.
        max_predict_rows: use only the first rows of `predict`.
        seed: of the shuffling and of the choice of `val_rows`.
        passes: passes over the training rows in one epoch of the trainer.
        num_workers: processes that collate batches; 0 collates in the training process, which is seldom slower.
        tokenizer: directory or hub name of a tokenizer; by default the policy's own.

    Raises:
        InputError: a setting, a file, a row or the tokenizer cannot be used; the message names the mend.
    """

    def __init__(
        self,
        train: QASource | str | None = None,
        val: QASource | str | None = None,
        test: QASource | str | None = None,
        predict: QASource | str | None = None,
        format: RowFormat | None = None,
        template: PromptTemplate | None = None,
        batch_size: int = 4,
        window: int = 1,
        window_epochs: int = 1,
        eval_batch_size: int | None = None,
        max_prompt_tokens: int = 1024,
        max_answer_tokens: int = 512,
        max_dropped_share: float = 0.05,
        val_rows: int = 0,
        max_train_rows: int | None = None,
        max_val_rows: int | None = None,
        max_test_rows: int | None = None,
        max_predict_rows: int | None = None,
        seed: int = 0,
        passes: int = 1,
        num_workers: int = 0,
        tokenizer: str | None = None,
    ) -> None:
        super().__init__()
        self.sources = {"train": train, "val": val, "test": test, "predict": predict}
        self.max_rows = {
            "train": max_train_rows, "val": max_val_rows, "test": max_test_rows, "predict": max_predict_rows
        }  # fmt: skip
        self.format = format or QuestionAnswer()
        self.template = template or PlainTemplate()
        self.batch_size, self.window, self.window_epochs = batch_size, window, window_epochs
        self.passes, self.seed = passes, seed
        self.eval_batch_size = batch_size if eval_batch_size is None else eval_batch_size
        self.max_prompt_tokens, self.max_answer_tokens = max_prompt_tokens, max_answer_tokens
        self.max_dropped_share, self.val_rows = max_dropped_share, val_rows
        self.num_workers, self.tokenizer = num_workers, tokenizer
        self.encoded: dict[str, EncodedRows] = {}
        self._encoded_with: PreTrainedTokenizerBase | None = None
        self._order: dict[str, int] = {}
        self._sampler: WindowSampler | None = None  # of the loader that training goes through
        self._resumed: dict[str, int] = {}
        check_settings(vars(self), self.max_rows)
        if val_rows and val is not None:
            raise InputError(f"val_rows={val_rows} takes rows from `train`, but `val` is given too. Set one of them.")

    def setup(self, stage: str | None = None) -> None:
        """Read, check and encode what the stage needs; everything that is given where there is no stage."""
        limits = (self.max_prompt_tokens, self.max_answer_tokens, self.max_dropped_share)
        encoder = PromptEncoder(self._find_tokenizer(), self.template, *limits)
        if encoder.tokenizer is not self._encoded_with:
            self.encoded, self._encoded_with = {}, encoder.tokenizer
        for split in STAGE_SPLITS.get(stage or "", DATASET_SPLITS):
            given = self.sources[split] is not None or (split == "val" and self.val_rows > 0)
            if given and split not in self.encoded:
                self.encoded[split] = encoder.encode(self._rows(split), split)
            elif not given and stage is not None and (stage, split) != ("fit", "val"):
                raise InputError(f"There is no {split} data. Set `{split}` of the data to a file, directory or source.")

    def train_dataloader(self) -> DataLoader[Any]:
        """Micro-batches of windows, from where the trainer stands in its run."""
        trainer: Any = self.trainer
        start, limit, ranks = 0, 1.0, {"num_replicas": 1, "rank": 0}
        if trainer is not None:
            check_trainer(self.window, self.window_epochs, trainer)
            start = self._processed(trainer)
            limit = 1.0 if trainer.fast_dev_run else trainer.limit_train_batches
            ranks = trainer.distributed_sampler_kwargs or ranks
        dataset = self._dataset("train")
        sampler = WindowSampler(
            len(dataset), self.batch_size, self.window, self.seed, self.passes, start=start, limit=limit,
            window_epochs=self.window_epochs, **ranks
        )  # fmt: skip
        self._order, self._sampler = sampler.order, sampler
        if start > 0:
            check_resumed(self._resumed, self._order)
        return DataLoader(dataset, batch_size=None, sampler=sampler, num_workers=self.num_workers)

    def replacement_rows(self, count: int, *key: int | str) -> Prompts:
        """Training rows beside those of the micro-batches, other ones on every process.

        They are drawn by a hash of the key alone, so nothing needs to be kept of them: the order of the micro-batches
        is what it is without them, and a resumed run draws the same.

        Args:
            count: rows for this process.
            key: says where in the run they are drawn.
        """
        dataset, trainer = self._dataset("train"), cast(Any, self.trainer)
        order = shuffled(len(dataset), self.seed, "further", *key).tolist()
        places = range(trainer.global_rank, count * trainer.world_size, trainer.world_size)
        return dataset.collate([dataset[order[place % len(order)]] for place in places])

    def next_window(self, epoch: int, micro_batch: int) -> tuple[Prompts, int, int]:
        """The prompts of the window after the one that begins at this micro-batch, before its turn has come.

        Args:
            epoch: of the trainer.
            micro_batch: within the epoch.

        Returns:
            The window's prompts on this process, its epoch and its first micro-batch.
        """
        assert self._sampler is not None, "training has not begun"
        epoch, micro_batch = self._sampler.following(epoch, micro_batch)
        where = WindowStep(0, self.window, 0, self.window_epochs)
        window = MicroBatch(self._sampler.rows_of(epoch, micro_batch), where)
        return self._dataset("train")[window], epoch, micro_batch

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """The validation rows in order; no loader where there are none."""
        return self._in_order("val", even=True) if "val" in self.encoded else []

    def test_dataloader(self) -> DataLoader[Any]:
        """The test rows in order."""
        return self._in_order("test", even=True)

    def predict_dataloader(self) -> DataLoader[Any]:
        """The prediction rows in order."""
        return self._in_order("predict")

    def state_dict(self) -> dict[str, int]:
        """What the order of the micro-batches hangs on, so that a resume can tell whether it is the same, and how many
        of them are done.
        """
        return self._order | {"processed": self._processed(self.trainer)}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Keep the checkpoint's order; it is compared when training goes on."""
        self._resumed = state_dict

    def _processed(self, trainer: Any) -> int:
        """Micro-batches done. A trainer that makes the loader to count its steps does so after it has restored this
        object and before it has restored its own loops.
        """
        loops = trainer.fit_loop.epoch_loop.batch_progress.total.processed
        return max(loops, self._resumed.get("processed", 0) if trainer.ckpt_path else 0)

    def _find_tokenizer(self) -> PreTrainedTokenizerBase:
        if self.tokenizer is not None:
            return self._own_tokenizer
        policy = getattr(getattr(self.trainer, "lightning_module", None), "policy", None)
        tokenizer = getattr(policy, "tokenizer", None)
        if tokenizer is None:
            raise InputError(
                "There is no tokenizer: the model has no `policy.tokenizer`, and `tokenizer` of the data is not set. "
                "Set it to the model's directory or hub name."
            )
        return tokenizer

    @cached_property
    def _own_tokenizer(self) -> PreTrainedTokenizerBase:
        try:
            return AutoTokenizer.from_pretrained(self.tokenizer)
        except (OSError, ValueError) as error:
            raise InputError(
                f"tokenizer='{self.tokenizer}' could not be loaded ({error}). Give a directory or hub name."
            ) from error

    def _rows(self, split: str) -> list[Row]:
        if self.val_rows and split in ("train", "val"):
            return self._divided[split]
        return self._read(split)

    @cached_property
    def _divided(self) -> dict[str, list[Row]]:
        """The rows of `train`, with `val_rows` of them apart."""
        rows = self._read("train")
        if self.val_rows >= len(rows):
            raise InputError(f"val_rows={self.val_rows} leaves nothing of {len(rows)} rows to train on. Lower it.")
        taken = set(shuffled(len(rows), self.seed, "val")[: self.val_rows].tolist())
        return {
            "train": [row for place, row in enumerate(rows) if place not in taken],
            "val": [row for place, row in enumerate(rows) if place in taken],
        }

    def _read(self, split: str) -> list[Row]:
        source, limit = self.sources[split], self.max_rows[split]
        if limit is not None and split == "train":
            limit += self.val_rows
        if source is None:
            raise InputError(f"val_rows={self.val_rows} takes rows from `train`, which is not given. Set `train`.")
        if isinstance(source, str):
            source = FileSource(
                source, self.format, DATASET_SPLITS[split], max_rows=limit, require_answers=split != "predict"
            )
        rows = source.rows()[:limit]
        unanswered = next((row for row in rows if row.answer is None), None)
        if unanswered is not None and split != "predict":
            raise InputError(f"{split}: {unanswered.origin} has no answer. Only `predict` takes rows without one.")
        return rows

    def _dataset(self, split: str) -> EncodedRows:
        if split not in self.encoded:
            raise InputError(f"The {split} rows are not read yet. Set `{split}` of the data and call `setup` first.")
        return self.encoded[split]

    def _in_order(self, split: str, even: bool = False) -> DataLoader[Any]:
        dataset, trainer = self._dataset(split), cast(Any, self.trainer)
        ranks = trainer.distributed_sampler_kwargs if even and trainer is not None else None
        return DataLoader(
            dataset,
            batch_size=self.eval_batch_size,
            sampler=EvaluationSampler(dataset, shuffle=False, **ranks) if ranks else None,
            collate_fn=dataset.collate,
            num_workers=self.num_workers,
        )
