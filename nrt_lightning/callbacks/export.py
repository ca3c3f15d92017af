"""The trained policy as a Hugging Face directory."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from transformers import AutoTokenizer

from nrt_lightning.errors import InputError


class ExportPolicy(Callback):
    """Writes weights and tokenizer at the end of training, for `from_pretrained` and for `policy.model`.

    Args:
        directory: where to; made if it is not there, and must be empty.
        marker: whether tokenizer and vocabulary keep the marker. False writes them as they were found, for a base that
            has not learned the marker: whoever loads it adds it anew.

    Raises:
        InputError: the directory holds something already, or cannot be written.
    """

    def __init__(self, directory: str, marker: bool = True) -> None:
        self.directory = Path(directory).expanduser()
        self.marker = marker

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the directory, before anything is computed."""
        if stage != "fit" or not trainer.is_global_zero:
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            full = any(self.directory.iterdir())
        except OSError as error:
            raise InputError(f"export directory {self.directory} cannot be written ({error}). Give another.") from error
        if full:
            raise InputError(f"export directory {self.directory} is not empty. Give another, or empty it.")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write."""
        if not trainer.is_global_zero:
            return
        policy: Any = pl_module.policy
        network, tokenizer = policy.network, policy.tokenizer
        if not self.marker and policy.marker_is_new:
            tokenizer = AutoTokenizer.from_pretrained(policy.source)
            network = copy.deepcopy(network)
            if network.get_input_embeddings().num_embeddings == policy.marker_id + 1:  # grown for the marker
                network.resize_token_embeddings(policy.marker_id)
        network.save_pretrained(self.directory)
        tokenizer.save_pretrained(self.directory)
