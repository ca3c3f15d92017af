"""What the package ships: the tiny base model of the register task."""

from pathlib import Path

REGISTERS_BASE = Path(__file__).parent / "registers-base"
"""A Llama of 164 thousand parameters with a character tokenizer, for `from_pretrained(REGISTERS_BASE)`."""
