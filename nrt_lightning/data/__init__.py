"""Questions and reference answers, from files to padded batches. `QADataModule` combines parts that also work alone."""

from nrt_lightning.data.batches import TextBatchEncoder, TextBatches
from nrt_lightning.data.chat_template import ChatTemplate
from nrt_lightning.data.datamodule import QADataModule
from nrt_lightning.data.default_template import default_template, prompt_example
from nrt_lightning.data.encoding import EncodedRow, EncodedRows, PromptEncoder, collate
from nrt_lightning.data.formats import Messages, PromptCompletion, QuestionAnswer, RowFormat
from nrt_lightning.data.plain_template import PlainTemplate
from nrt_lightning.data.report import EncodingReport
from nrt_lightning.data.sampler import MicroBatch, WindowSampler
from nrt_lightning.data.sources import FileSource, MemorySource, QASource
from nrt_lightning.data.templates import PromptTemplate, WorkedExample

__all__ = [
    "ChatTemplate", "EncodedRow", "EncodedRows", "EncodingReport", "FileSource", "MemorySource", "Messages",
    "MicroBatch", "PlainTemplate", "PromptCompletion", "PromptEncoder", "PromptTemplate", "QADataModule", "QASource",
    "QuestionAnswer", "RowFormat", "TextBatchEncoder", "TextBatches", "WindowSampler", "WorkedExample", "collate",
    "default_template", "prompt_example"
]  # fmt: skip
