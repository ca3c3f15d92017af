"""Generated tasks, and the corpora that their base models are pretrained on."""

from nrt_lightning.tasks.chain_sum_corpus import ChainSumCorpus
from nrt_lightning.tasks.gym_source import ReasoningGymRow, ReasoningGymSource
from nrt_lightning.tasks.pointer_corpus import PointerCorpus
from nrt_lightning.tasks.pointers import PointerChasing
from nrt_lightning.tasks.register_corpus import RegisterCorpus
from nrt_lightning.tasks.registers import RegisterPrograms
from nrt_lightning.tasks.report_corpus import ReportCorpus
from nrt_lightning.tasks.reports import SloppyReports

__all__ = [
    "ChainSumCorpus", "PointerChasing", "PointerCorpus", "ReasoningGymRow", "ReasoningGymSource", "RegisterCorpus",
    "RegisterPrograms", "ReportCorpus", "SloppyReports"
]  # fmt: skip
