"""Short runs that leave nothing behind."""

import lightning as L
import pytest


@pytest.fixture
def quiet_trainer(tmp_path):
    def make(**settings) -> L.Trainer:
        L.seed_everything(7)
        defaults = {
            "accelerator": "cpu",
            "max_steps": 4,
            "max_epochs": -1,
            "default_root_dir": tmp_path,
            "gradient_clip_val": 1.0,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "limit_val_batches": 0,
        }
        return L.Trainer(**defaults | settings)

    return make
