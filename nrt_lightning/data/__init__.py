"""Questions and reference answers, from files to padded batches. `QADataModule` combines parts that also work alone."""

from nrt_lightning.data.datamodule import QADataModule
from nrt_lightning.data.encoding import EncodedRow, EncodedRows, EncodingReport, PromptEncoder, collate
from nrt_lightning.data.formats import Messages, PromptCompletion, QuestionAnswer, RowFormat
from nrt_lightning.data.sampler import MicroBatch, WindowSampler
from nrt_lightning.data.sources import FileSource, QASource
from nrt_lightning.data.templates import ChatTemplate, PlainTemplate, PromptTemplate

__all__ = [
    "ChatTemplate",
    "EncodedRow",
    "EncodedRows",
    "EncodingReport",
    "FileSource",
    "Messages",
    "MicroBatch",
    "PlainTemplate",
    "PromptCompletion",
    "PromptEncoder",
    "PromptTemplate",
    "QADataModule",
    "QASource",
    "QuestionAnswer",
    "RowFormat",
    "WindowSampler",
    "collate",
]
