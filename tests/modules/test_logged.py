"""Values of training steps cost little to log."""

import torch
from lightning.pytorch.trainer.connectors.logger_connector.result import _Metadata, _ResultCollection, _ResultMetric
from short_runs import fast, registers

from nrt_lightning import Policy, SFTModule
from nrt_lightning.modules.logged import fewer_moves


def logged(values) -> float:
    results = _ResultCollection(training=True)
    for value in values:
        results.log("training_step", "x", value, on_step=True, on_epoch=True, batch_size=2)
    return float(results.metrics(on_step=False)["callback"]["x_epoch"])


def test_values_are_those_that_lightning_logs():
    values = [torch.tensor(1.0), torch.tensor(4.0)]
    with fewer_moves():
        found = logged(values)
    assert found == logged(values) == 2.5


def test_a_metric_is_moved_to_another_device_only():
    metric = _ResultMetric(_Metadata("f", "x"), is_tensor=True)
    before = _ResultMetric.to
    with fewer_moves():
        assert metric.to(torch.device("cpu")) is metric
        assert metric.to(torch.device("meta")).value.device.type == "meta"
    assert _ResultMetric.to is before


def test_throughput_is_logged_where_loggers_read_it(trainer):
    seen = []

    class Watched(SFTModule):
        def log(self, name, *args, **kwargs):
            seen.append((self.trainer.global_step + 1, name))
            super().log(name, *args, **kwargs)

    module = Watched(Policy("embedded:registers-base"), optimizer=fast)
    made = trainer(max_steps=7, log_every_n_steps=3, limit_val_batches=0)
    made.fit(module, registers())
    assert [step for step, name in seen if name == "train/tokens_per_second"] == [1, 3, 6]
    assert [step for step, name in seen if name == "train/loss"] == [*range(1, 8)]
