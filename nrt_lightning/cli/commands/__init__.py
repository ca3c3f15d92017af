"""Commands beyond those of Lightning's Trainer: one file per command, with a `main` that takes its arguments."""

from pathlib import Path
from pkgutil import iter_modules

COMMANDS = {module.name: f"{__name__}.{module.name}" for module in iter_modules([str(Path(__file__).parent)])}
