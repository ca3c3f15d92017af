"""What the package ships: the tiny base models, one for each task made in code."""

from pathlib import Path

REGISTERS_BASE = Path(__file__).parent / "registers-base"
"""A Llama of 164 thousand parameters with a character tokenizer, for `from_pretrained(REGISTERS_BASE)`."""

REPORTS_BASE = Path(__file__).parent / "reports-base"
"""The same with a token a word, for the sloppy report."""

MADE_UP_REPORTS_BASE = Path(__file__).parent / "made-up-reports-base"
"""Another for the sloppy report, from a text in which most reports are made up."""

POINTERS_BASE = Path(__file__).parent / "pointers-base"
"""The same with the character tokenizer, for pointer chasing."""
