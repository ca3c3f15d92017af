"""Numbers that are not finite, wherever they arise: the weights stay, and the message names what and where."""

import json
import math

import lightning as L
import pytest
import torch
from short_runs import nrt_module, registers, weights

from nrt_lightning import InputError, Policy, SFTModule, TransformersEngine
from nrt_lightning.rollouts import GenerationRequest
from nrt_lightning.rollouts.sampling import draw, restrict

BASE = "embedded:registers-base"
LAST = "model.model.layers.1.mlp.down_proj.weight"


def sft_module():
    return SFTModule(Policy(BASE))


class Faulty(L.Callback):
    """Does something to a run in one step."""

    def __init__(self, fault, step=1):
        self.fault, self.step, self.weights, self.handle = fault, step, [], None

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == self.step and self.fault.where == "hidden":
            layer = module.policy.network.model.layers[self.fault.layer]
            self.handle = layer.register_forward_hook(lambda _, inputs, output: self.fault.hidden(output))

    def on_after_backward(self, trainer, module):
        if trainer.global_step == self.step and self.fault.where == "gradient":
            self.fault.gradient([p for p in module.parameters() if p.grad is not None])

    def on_train_batch_end(self, trainer, module, *args):
        self.weights.append(weights(module))
        if self.handle is not None:
            self.handle.remove()
            self.handle = None


class Gradient:
    """Puts a value into gradients."""

    where = "gradient"

    def __init__(self, value, choose):
        self.value, self.choose = value, choose

    def gradient(self, params):
        for parameter in self.choose(params):
            parameter.grad.view(-1)[-1] = self.value


class Hidden:
    """Puts a value into the hidden states of a layer."""

    where = "hidden"

    def __init__(self, value, layer=0):
        self.value, self.layer = value, layer

    def hidden(self, output):
        first = output if torch.is_tensor(output) else output[0]
        changed = first.clone()
        changed[0, -1, 0] = self.value
        return changed if torch.is_tensor(output) else (changed, *output[1:])


FAULTS = {
    "NaN in the first gradient": Gradient(math.nan, lambda params: params[:1]),
    "NaN in the last gradient": Gradient(math.nan, lambda params: params[-1:]),
    "NaN in all gradients": Gradient(math.nan, lambda params: params),
    "infinity in one gradient": Gradient(math.inf, lambda params: params[3:4]),
    "minus infinity in one gradient": Gradient(-math.inf, lambda params: params[3:4]),
    "both infinities": Gradient(math.inf, lambda params: params[::2]),
    "a norm beyond float32": Gradient(3e38, lambda params: params[:4]),
    "a negative one": Gradient(-3e38, lambda params: params[-4:]),
    "NaN in a hidden state": Hidden(math.nan),
    "NaN in the last layer": Hidden(math.nan, layer=1),
    "infinity in a hidden state": Hidden(math.inf),
    "minus infinity in the last layer": Hidden(-math.inf, layer=1),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_step_of_supervised_training_is_skipped_and_named(name, trainer, tmp_path, caplog):
    watch = Faulty(FAULTS[name])
    made = trainer(max_steps=3, callbacks=[watch])
    made.fit(sft_module(), registers(val=None))
    before, faulty, after = watch.weights
    assert all(torch.equal(before[weight], faulty[weight]) for weight in before)
    assert any(not torch.equal(after[weight], faulty[weight]) for weight in before), "the run goes on"
    assert all(value.isfinite().all() for value in after.values())
    (entry,) = map(json.loads, (tmp_path / "skipped_steps.jsonl").read_text().splitlines())
    assert entry["step"] == 1
    assert "gradient" in entry["not_finite"]
    assert len(entry["rows"]) == 3
    assert "step 1 is skipped" in caplog.text
    assert made.callback_metrics["train/skipped_steps"] == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_stays_so_ends_the_run_and_names_rows_and_limit(value, trainer):
    class Loss(SFTModule):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * value

    made, module = trainer(max_steps=9), Loss(Policy(BASE))
    with pytest.raises(InputError, match=r"3 optimizer steps in a row.*loss.*max_in_a_row=3.*registers-train"):
        made.fit(module, registers(val=None))
    assert all(weight.isfinite().all() for weight in weights(module).values())


def rewarding(monkeypatch, change):
    """A module whose rewards are changed."""
    module = nrt_module()
    kind = type(module.method.aggregator)
    plain = kind.__call__

    def changed(self, *args, **settings):
        found = plain(self, *args, **settings)
        found.value = change(found.value)
        return found

    monkeypatch.setattr(kind, "__call__", changed)
    return module


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38, -3e38])
def test_rewards_that_are_not_finite_or_overflow_reach_no_weight(value, trainer, monkeypatch):
    module = rewarding(monkeypatch, lambda rewards: torch.cat([rewards[:1] * 0 + value, rewards[1:]]))
    trainer(max_steps=2).fit(module, registers(val=None))
    assert all(weight.isfinite().all() for weight in weights(module).values())


# Sampling


def request(policy, **settings):
    ids = policy.tokenizer("a4b*2c+2d+3?dc:", return_tensors="pt")["input_ids"]
    stops = [policy.markup.marker_ids[0], *policy.eos_ids]
    return GenerationRequest(ids, torch.ones_like(ids).bool(), 6, stops, 2, seed=1, **settings)


def spoil(policy, value):
    with torch.no_grad():
        dict(policy.network.named_parameters())[LAST.removeprefix("model.")].view(-1)[0] = value


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("settings", [{}, {"temperature": 0.0}, {"top_p": 0.9}, {"top_k": 3}], ids=str)
def test_sampling_from_weights_that_are_not_finite_names_model_and_weight(policy, value, settings):
    spoil(policy, value)
    with pytest.raises(InputError, match=r"registers-base.*not finite within the first \d+ tokens.*down_proj\.weight"):
        TransformersEngine().generate(policy, request(policy, **settings))


def test_logits_that_overflow_name_the_number_type(policy):
    policy.network.lm_head.register_forward_hook(lambda _, inputs, output: output * 3e38 * 3e38)
    with pytest.raises(InputError, match=r"registers-base.*weights are finite.*float32.*precision"):
        TransformersEngine().generate(policy, request(policy))


@pytest.mark.parametrize("stage", ["fit", "validate"])
def test_in_a_run_the_step_is_named_too(stage, trainer):
    class Spoil(L.Callback):
        def on_train_batch_end(self, trainer, module, *args):
            if trainer.global_step == 2:
                spoil(module.policy, math.nan)

        def on_validation_start(self, trainer, module):
            spoil(module.policy, math.nan)

    made, module = trainer(max_steps=5, callbacks=[Spoil()]), nrt_module()
    step = 2 if stage == "fit" else 0
    with pytest.raises(InputError, match=rf"step {step}: .*registers-base.*down_proj\.weight is not finite"):
        getattr(made, stage)(module, registers(val=None) if stage == "fit" else registers())


# Extreme but legal


LEGAL = {
    "probabilities of 1e-40": torch.tensor([[0.0, -92.0, -92.0]]),
    "one certain token": torch.tensor([[0.0, -math.inf, -math.inf]]),
    "logits near the largest number": torch.tensor([[3e36, 1e36, -3e36]]),
    "equal logits": torch.zeros(1, 3),
    "smallest differences": torch.tensor([[0.0, 1e-45, -1e-45]]),
}


@pytest.mark.parametrize("name", LEGAL)
@pytest.mark.parametrize("settings", [{}, {"top_p": 0.5}, {"top_k": 2}, {"temperature": 0.01}], ids=str)
def test_extreme_logits_are_sampled_from(name, settings):
    logprobs = restrict(LEGAL[name], **settings)
    for uniform in (0.0, 0.5, 1 - 2**-24):
        token = draw(logprobs, torch.tensor([uniform]))
        assert logprobs[0, token].isfinite().all()
        assert LEGAL[name][0, token].isfinite().all()


@pytest.mark.parametrize("value", [0.0, 1e-45, -1e-45, 1e15], ids=str)
def test_extreme_but_finite_gradients_are_steps(value, trainer, caplog):
    watch = Faulty(Gradient(value, lambda params: params[:1]))
    made = trainer(max_steps=3, callbacks=[watch], gradient_clip_val=1.0)
    module = sft_module()
    made.fit(module, registers(val=None))
    assert "skipped" not in caplog.text
    assert all(weight.isfinite().all() for weight in weights(module).values())


def test_equal_rewards_skip_nothing(trainer, monkeypatch, caplog):
    module = rewarding(monkeypatch, lambda rewards: torch.full_like(rewards, 0.5))
    trainer(max_steps=2).fit(module, registers(val=None))
    assert "skipped" not in caplog.text
    assert all(weight.isfinite().all() for weight in weights(module).values())
