"""`max_tokens_per_micro_batch: auto`: a step that runs out of memory is done again in smaller parts."""

import pytest
import torch
from short_runs import nrt_module, registers, weights

from nrt_lightning import ConstantSchedule, InputError, LoRA, NRTModule, Policy
from nrt_lightning.callbacks import out_of_memory
from nrt_lightning.strategies import Processes


def runs_out(module, place, times=1, at_step=1):
    """Let memory run out in the first forward or backward passes of a step."""
    left = [times]

    def failing(call):
        def one(*args, **settings):
            step = getattr(module.trainer, "global_step", 0)
            if torch.is_grad_enabled() and step == at_step and left[0] > 0 and module.trainer.training:
                left[0] -= 1
                if place == "late in backward":
                    call(*args, **settings)
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return call(*args, **settings)

        return one

    if place == "forward":
        module.policy.score = failing(module.policy.score)
    else:
        module.backward = failing(module.backward)
    return module


def made(limit, **settings):
    return nrt_module(max_tokens_per_micro_batch=limit, schedule=ConstantSchedule(warmup=0), **settings)


def run(trainer, module, steps=3, ckpt_path=None, **settings):
    run = trainer(max_steps=steps, **settings)
    window = settings.get("accumulate_grad_batches", 1)
    run.fit(module, registers(val=None, window=window), ckpt_path=ckpt_path)
    return run


@pytest.mark.parametrize(
    ("place", "accumulate"),
    [
        ("forward", 1),
        ("backward", 2),
        ("late in backward", 2),
        pytest.param("forward", 2, marks=pytest.mark.slow),
        pytest.param("backward", 1, marks=pytest.mark.slow),
        pytest.param("late in backward", 1, marks=pytest.mark.slow),
    ],
)
def test_the_step_is_done_again_as_if_the_budget_had_been_lower_before(trainer, place, accumulate, caplog):
    module = runs_out(made("auto"), place)
    ended = run(trainer, module, accumulate_grad_batches=accumulate)
    budget = module.token_budget
    assert budget is not None
    assert f"max_tokens_per_micro_batch=auto is now {budget}" in caplog.text
    assert "step 1 ran out of memory with 12 traces of up to" in caplog.text
    assert ended.callback_metrics["train/micro_batches"] > 1

    other = made("auto")

    def lower(trainer=None):
        if other.trainer.global_step == 1:
            other.token_budget = budget
        return seed()

    seed, other.seed_step = other.seed_step, lower  # from the beginning of that step on
    run(trainer, other, accumulate_grad_batches=accumulate)
    mine, expected = weights(module), weights(other)
    assert all(torch.equal(weight, expected[name]) for name, weight in mine.items())


def test_dropout_is_drawn_again(trainer):
    found = []
    for memory in (True, False):
        module = made("auto", policy=Policy("embedded:registers-base", adapter=LoRA(rank=4, dropout=0.5)))
        if memory:
            runs_out(module, "forward", at_step=0)
        else:
            module.token_budget = found[0][1]
        run(trainer, module, steps=2)
        found.append((weights(module), module.token_budget))
    assert all(torch.equal(weight, found[1][0][name]) for name, weight in found[0][0].items())


def test_several_lacks_halve_the_budget_until_the_groups_are_alone(trainer):
    module = runs_out(made("auto"), "forward", times=100)
    with pytest.raises(torch.OutOfMemoryError) as error:
        run(trainer, module)
    assert "A group is not divided: lower model.sampling.group_size" in str(error.value.__cause__)


def test_the_budget_is_saved_and_resumed(trainer, tmp_path, caplog):
    module = runs_out(made("auto"), "forward", at_step=0)
    first = run(trainer, module, steps=1)
    first.save_checkpoint(tmp_path / "a.ckpt")
    resumed = made("auto")
    run(trainer, resumed, steps=2, ckpt_path=tmp_path / "a.ckpt")
    assert resumed.token_budget == module.token_budget
    assert f"goes on with {module.token_budget}" in caplog.text
    fixed = made(5000)
    run(trainer, fixed, steps=2, ckpt_path=tmp_path / "a.ckpt")
    assert fixed.token_budget == 5000


def test_without_a_lack_auto_is_the_whole_batch(trainer):
    module, whole = made("auto"), made(None)
    for one in (module, whole):
        run(trainer, one, steps=2)
    assert module.token_budget is None
    assert all(torch.equal(weight, weights(whole)[name]) for name, weight in weights(module).items())


def test_a_number_ends_the_run(trainer):
    with pytest.raises(torch.OutOfMemoryError) as error:
        run(trainer, runs_out(made(100), "forward"))
    assert "Lower model.max_tokens_per_micro_batch" in str(error.value.__cause__)


def test_with_several_processes_it_stops_and_names_the_setting(trainer, monkeypatch):
    class Two(Processes):
        def __init__(self, strategy=None):
            super().__init__()
            self.count = 2
            self.strategy = type("Strategy", (), {"reduce": staticmethod(lambda value, reduce_op: value)})()

    monkeypatch.setattr(NRTModule, "processes", Two())
    module = runs_out(made("auto"), "forward")
    made_trainer = trainer(max_steps=3)
    monkeypatch.setattr(out_of_memory, "several", lambda module: True)
    with pytest.raises(torch.OutOfMemoryError) as error:
        made_trainer.fit(module, registers(val=None))
    assert "model.max_tokens_per_micro_batch is auto, which lowers the budget in a single" in str(error.value.__cause__)
    assert "with 12 traces" in str(error.value.__cause__)
    assert module.token_budget is None


def test_other_words_are_refused():
    with pytest.raises(InputError, match=r"max_tokens_per_micro_batch.*'all'"):
        made("all")
