"""Short runs."""

import lightning as L
import pytest


@pytest.fixture
def trainer(tmp_path):
    def make(**settings) -> L.Trainer:
        L.seed_everything(7)
        defaults = {
            "accelerator": "cpu",
            "devices": 1,
            "max_steps": 4,
            "max_epochs": -1,
            "logger": False,
            "default_root_dir": tmp_path,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "num_sanity_val_steps": 0,
        }
        return L.Trainer(**defaults | settings)

    return make
