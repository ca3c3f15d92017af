"""A dry step with the longest rows finds a lack of memory before the first step, and changes nothing."""

import random
from copy import deepcopy

import lightning as L
import numpy
import pytest
import torch
from short_runs import nrt_module, registers, weights
from test_out_of_memory import full

from nrt_lightning import CheckLongest, ConstantSchedule, EMADeviationFilter, InputError, Policy, SFTModule
from nrt_lightning.callbacks.check_longest import bytes_per_weight, longest_rows


class Look(L.Callback):
    """Notes the state before or after the dry step."""

    def __init__(self):
        self.state = {}

    def on_train_start(self, trainer, module):
        generators = torch.get_rng_state().tolist(), random.getstate(), numpy.random.get_state()[1].tolist()
        values = {k: v for k, v in vars(module).items() if isinstance(v, int | bool | str | float)}
        self.state = {
            "weights": {name: p.clone() for name, p in module.policy.named_parameters()},
            "optimizer": deepcopy(trainer.optimizers[0].state_dict()),
            "gradients": [name for name, p in module.named_parameters() if p.grad is not None],
            "generators": generators,
            "metrics": dict(trainer.callback_metrics) | dict(trainer.logged_metrics),
            "results": dict(trainer.fit_loop.epoch_loop._results),
            "values": values,
            "names": sorted(vars(module)),
        }


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return one == other


KINDS = {
    "auto": lambda: {"max_tokens_per_micro_batch": "auto"},
    "parts, answers that are written": lambda: {"max_tokens_per_micro_batch": 60, "train_response": True},
    "filters": lambda: {
        "filters": [EMADeviationFilter(beta=1.0, momentum=0.5, average_from=1, filter_from=2)],
    },
    "SFT": dict,
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_nothing_is_changed(trainer, name):
    before, after, found = Look(), Look(), []
    for checks in ([before, CheckLongest(), after], []):
        policy = Policy("embedded:registers-base")
        settings = KINDS[name]() | {"policy": policy, "schedule": ConstantSchedule(warmup=0)}
        module = SFTModule(policy) if name == "SFT" else nrt_module(**settings)
        trainer(max_steps=2, callbacks=checks).fit(module, registers(val=None, window=2 if name == "filters" else 1))
        filters = module.method.filters if name == "filters" else []
        found.append((weights(module), [filter_.state_dict() for filter_ in filters]))
    assert before.state.keys() == after.state.keys()
    for part, value in before.state.items():
        assert same(value, after.state[part]), part
    assert same(*(weight for weight, _ in found))
    assert found[0][1] == found[1][1]


def test_the_longest_rows_and_traces_are_tried(trainer, monkeypatch):
    seen = []
    module, data = nrt_module(), registers(val=None, window=2)
    learn = module.learn
    module.learn = lambda batch: (seen.append(batch), learn(batch))[1]
    trainer(max_steps=1, callbacks=[CheckLongest()]).fit(module, data)
    lengths = sorted((len(p) + len(a) for p, a in zip(data.encoded["train"].prompts, data.encoded["train"].answers)))
    dry = seen[0]
    total = dry.prompt_mask.sum(dim=1) + dry.answer_mask.sum(dim=1)
    assert total.tolist() == lengths[::-1][:3]
    assert dry.trained.segments.trace_mask.sum(dim=1).tolist() == [12] * 12, "max_trace_tokens"
    assert len(longest_rows(data)) == 6


def test_a_lack_of_memory_ends_the_run_before_the_first_step(trainer, monkeypatch):
    module = nrt_module()
    monkeypatch.setattr(module.policy, "score", full)
    run = trainer(max_steps=1, callbacks=[CheckLongest()])
    with pytest.raises(InputError, match=r"check_longest.*3 rows.*2\.00 GiB.*max_tokens_per_micro_batch"):
        run.fit(module, registers(val=None))
    assert run.global_step == 0


def test_auto_finds_its_budget_before_the_first_step(trainer, monkeypatch):
    module, calls = nrt_module(max_tokens_per_micro_batch="auto"), []
    score = module.policy.score
    monkeypatch.setattr(
        module.policy, "score", lambda *a, **s: (calls.append(1), full() if len(calls) == 1 else score(*a, **s))[1]
    )
    trainer(max_steps=1, callbacks=[CheckLongest()]).fit(module, registers(val=None))
    assert module.token_budget


def test_data_without_rows_is_refused(trainer):
    loader = torch.utils.data.DataLoader([{"question": "a", "answer": "b"}])
    with pytest.raises(InputError, match=r"check_longest.*QADataModule"):
        trainer(max_steps=1, callbacks=[CheckLongest()]).fit(SFTModule(Policy("embedded:registers-base")), loader)


@pytest.mark.parametrize(("kind", "expected"), [(torch.optim.AdamW, 8), (torch.optim.Adam, 8), (torch.optim.SGD, 0)])
def test_memory_is_held_for_the_state_of_the_optimizer(kind, expected):
    optimizer = kind([torch.nn.Parameter(torch.zeros(2))], lr=0.1)
    assert bytes_per_weight(optimizer, torch.float32) == expected
