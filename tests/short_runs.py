"""Short runs on the embedded base."""

from __future__ import annotations

import lightning as L
import torch

from nrt_lightning import LinearSchedule, NRTModule, PlainTemplate, Policy, QADataModule, RegisterPrograms, Sampling


def fast(params):
    return torch.optim.AdamW(params, lr=1e-3)


def nrt_module(**settings) -> NRTModule:
    defaults = {
        "policy": Policy("embedded:registers-base"),
        "sampling": Sampling(group_size=4, max_trace_tokens=12),
        "optimizer": fast,
        "schedule": LinearSchedule(warmup=0),
    }
    return NRTModule(**defaults | settings)


def registers(**settings) -> QADataModule:
    defaults = {
        "train": RegisterPrograms("train", 24),
        "val": RegisterPrograms("validation", 6),
        "test": RegisterPrograms("test", 6),
        "batch_size": 3,
    }
    return QADataModule(**{"template": PlainTemplate()} | defaults | settings)


class Recorder(L.Callback):
    """Notes what each micro-batch was trained on."""

    def __init__(self):
        self.rows, self.ratios, self.batches, self.metrics, self.advantages = [], [], [], [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.rows.append([row.id for row in batch.rows])
        self.batches.append(batch)
        self.advantages.append(outputs.get("advantages"))
        self.ratios.append(float(trainer.callback_metrics["train/ratio_max"]))
        self.metrics.append({k: float(v) for k, v in trainer.callback_metrics.items()})


def weights(module):
    return {name: p.detach().clone() for name, p in module.policy.named_parameters()}
