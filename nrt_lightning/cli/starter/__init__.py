"""What `nrt-lightning init` finds out about rows, model and machine, and the settings that follow from it."""

from nrt_lightning.cli.starter.examples import with_place
from nrt_lightning.cli.starter.machine import Machine
from nrt_lightning.cli.starter.model import ModelFacts
from nrt_lightning.cli.starter.rows import RowFacts
from nrt_lightning.cli.starter.settings import settings_for
from nrt_lightning.cli.starter.telling import told
from nrt_lightning.cli.starter.text import Setting, fill

__all__ = ["Machine", "ModelFacts", "RowFacts", "Setting", "fill", "settings_for", "told", "with_place"]
