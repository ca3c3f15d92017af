"""Plans compared with measurements."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from forked import run_forked
from transformers import AutoConfig

from benchmarks.architectures import SETTINGS, SHAPE
from benchmarks.measure import flop_counter
from benchmarks.workload import Workload, build_policy, fixed_rollouts, llama_config, prompts
from nrt_lightning import (
    AdapterDisabledReference,
    EMAReference,
    FourBit,
    FrozenReference,
    InitialBaseline,
    KLPenalty,
    LoRA,
    NRTLoss,
    NRTModule,
    QuantizedReference,
    Reference,
    ReferenceBaseline,
    RolloutEngine,
    Sampling,
    SFTModule,
    VLLMColocatedEngine,
)
from nrt_lightning.models import PackedGroups, PromptCopies, PromptTree, SharedPrompt
from nrt_lightning.rollouts import TransformersEngine
from nrt_lightning.rollouts.engine import trace_request
from nrt_lightning.tools.planning.duration import Speed, durations
from nrt_lightning.tools.planning.extrapolation import of_all_layers
from nrt_lightning.tools.planning.optimizer import measure_optimizer
from nrt_lightning.tools.planning.plan import Machine, make_plan
from nrt_lightning.tools.planning.report import report
from nrt_lightning.tools.planning.sizes import Lengths
from nrt_lightning.tools.planning.sketch import Skeleton, Sketch

MIB = 2**20
WORK = Workload(prompt_tokens=(80,) * 4, answer_tokens=(40,) * 4, trace_tokens=64, ends_after=0)
LENGTHS = Lengths(prompts=4, group_size=8, prompt=80, trace=64, answer=40)
LEARN = {"baseline": True, "reference": False, "accumulate": False}


def config_only(directory: Path, config) -> str:
    """A directory with only a config.json."""
    config.save_pretrained(directory)
    assert [path.name for path in directory.iterdir()] == ["config.json"]
    return str(directory)


def sketch(directory: Path, work: Workload = WORK, **settings) -> Sketch:
    return Sketch(config_only(directory, llama_config(work)), **settings)


def measured(work: Workload, rank: int) -> dict[str, int]:
    """Bytes at the peak of each phase."""
    arguments = json.dumps({"work": work.to_json(), "rank": rank})
    (printed,) = run_forked(Path(__file__).parent / "peaks.py", arguments, processes=1)
    return json.loads(printed.splitlines()[-1])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures by the files of Linux under /proc")
@pytest.mark.parametrize(
    ("work", "rank"),
    [
        pytest.param(dataclasses.replace(WORK, vocabulary=40_000, layers=3, kv_heads=2), 0, marks=pytest.mark.slow),
        (dataclasses.replace(WORK, layers=10, hidden=128, intermediate=400), 8),
    ],
    ids=["full", "LoRA"],
)
def test_peaks_are_those_measured(tmp_path, work, rank):
    policy = sketch(tmp_path, work, adapter=LoRA(rank=rank) if rank else None)
    found = {
        "learning": of_all_layers(policy, LENGTHS, "32-true", lambda small: small.learn(**LEARN)),
        "rollout": of_all_layers(
            policy, LENGTHS, "32-true", lambda small: small.sample(TransformersEngine(), work.sampling, gpu=False)
        ),
    }
    real = measured(work, rank)
    for phase, needs in found.items():
        assert sum(needs.memory.values()) == pytest.approx(real[phase], rel=0.2), phase


def test_weights_are_counted_to_the_last(tmp_path):
    policy, real = sketch(tmp_path, adapter=LoRA(rank=4)), build_policy(WORK)
    skeleton, whole = Skeleton(policy), sum(p.numel() for p in real.parameters())
    assert sum(p.numel() for p in skeleton.base) == whole
    trained = LoRA(rank=4).apply(real.network, real.markup.marker_stops())
    assert sum(p.numel() for p in skeleton.adapter) == sum(p.numel() for p in trained.parameters() if p.requires_grad)


def test_four_bits_are_what_bitsandbytes_takes(tmp_path):
    pytest.importorskip("bitsandbytes")
    for double_quant in (True, False):
        quantization = FourBit(double_quant=double_quant)
        skeleton = Skeleton(sketch(tmp_path / str(double_quant), adapter=LoRA(rank=4), quantization=quantization))
        network = quantization.quantize(build_policy(WORK).network)
        states = [p.quant_state for p in network.parameters() if hasattr(p, "quant_state")]
        real = sum(p.numel() * p.element_size() for p in network.parameters())
        for state in states:
            real += state.absmax.numel() * state.absmax.element_size()
            real += state.state2.absmax.numel() * 4 if state.nested else 0
        assert skeleton.bytes(skeleton.base) == pytest.approx(real, rel=0.01)


SMALL = Workload(prompt_tokens=(24,) * 2, answer_tokens=(12,) * 2, trace_tokens=16, group_size=4, ends_after=0,
                 vocabulary=2048, hidden=128, intermediate=352, layers=2, heads=4, kv_heads=2)  # fmt: skip
FEW = Lengths(prompts=2, group_size=4, prompt=24, trace=16, answer=12)


@pytest.mark.parametrize(
    ("scoring", "checkpointed"),
    [
        (PackedGroups(), False),
        (SharedPrompt(), False),
        (PromptTree(), False),
        (PromptTree(), True),
        (PromptCopies(), False),
        (PromptCopies(), True),
    ],
)
def test_flops_are_those_counted(tmp_path, scoring, checkpointed):
    settings = {"scoring": scoring, "activation_checkpointing": checkpointed, "adapter": LoRA(rank=4)}
    needs = of_all_layers(sketch(tmp_path, SMALL, **settings), FEW, "32-true", lambda small: small.learn(**LEARN))
    real = build_policy(SMALL, **settings)
    real.score(fixed_rollouts(SMALL))  # the first use compares forward passes
    with flop_counter() as counter:
        real.score(fixed_rollouts(SMALL), baseline=True).logprobs.sum().backward()
    assert sum(needs.flops.values()) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_flops_of_many_layers_and_prompts_follow_from_few(tmp_path):
    work = dataclasses.replace(SMALL, layers=6, prompt_tokens=(24,) * 5, answer_tokens=(12,) * 5)
    lengths = dataclasses.replace(FEW, prompts=5)
    needs = of_all_layers(sketch(tmp_path, work), lengths, "32-true", lambda small: small.learn(**LEARN))
    real = build_policy(work)
    real.score(fixed_rollouts(work))
    with flop_counter() as counter:
        real.score(fixed_rollouts(work), baseline=True).logprobs.sum().backward()
    assert sum(needs.flops.values()) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_flops_of_the_rollout_are_those_of_the_engine(tmp_path):
    engine = TransformersEngine(fixed_shapes=False)
    needs = of_all_layers(
        sketch(tmp_path, SMALL), FEW, "32-true", lambda small: small.sample(engine, SMALL.sampling, gpu=False)
    )
    real = build_policy(SMALL)
    request = trace_request(real, prompts(SMALL, 0), SMALL.sampling, seed=0)
    request.stop_ids = []
    engine.generate(real, request)  # the first use tries the decoder
    with flop_counter() as counter:
        engine.generate(real, request)
    assert needs.flops["rollout"] == pytest.approx(counter.get_total_flops(), rel=0.03)


def test_of_the_experts_only_the_active_ones_are_counted(tmp_path):
    """Twice as many experts, of which as many are active, cost nothing but a larger router."""
    found = []
    for number in (4, 8):
        shape = SHAPE | {"num_local_experts": number, "num_experts_per_tok": 2}
        policy = Sketch(config_only(tmp_path / str(number), AutoConfig.for_model("mixtral", **shape)))
        found.append(of_all_layers(policy, FEW, "32-true", lambda small: small.learn(**LEARN)).flops["forward"])
    assert found[0] < found[1] < 1.05 * found[0]
    dense = Sketch(config_only(tmp_path / "dense", AutoConfig.for_model("mistral", **SHAPE)))
    assert found[0] > 1.2 * of_all_layers(dense, FEW, "32-true", lambda small: small.learn(**LEARN)).flops["forward"]


@pytest.mark.parametrize(
    ("make", "states", "dtype"),
    [
        (lambda p: torch.optim.AdamW(p), 8, torch.float32),
        (lambda p: torch.optim.AdamW(p), 4, torch.bfloat16),
        (lambda p: torch.optim.SGD(p, lr=1.0), 0, torch.float32),
        (lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.9), 4, torch.float32),
    ],
)
def test_optimizers_tell_what_they_hold(make, states, dtype):
    assert measure_optimizer(make, dtype, on_gpu=False).states == states
    assert measure_optimizer(make, dtype, on_gpu=True).all_at_once


ONE = Machine()
FLAT = dataclasses.replace(WORK, layers=2, vocabulary=2048)


def plan(tmp_path, machine=ONE, lengths=LENGTHS, window=1, kind=NRTModule, policy=None, **settings):
    if kind is NRTModule:
        settings.setdefault("sampling", Sampling(group_size=8, max_trace_tokens=64))
    given = {"scoring": PromptCopies()} | (policy or {})  # the one with the fewest operations
    module = kind(sketch(tmp_path, FLAT, **given), **settings)
    return make_plan(module, lengths, window, machine)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """With the settings that a test does not name."""
    return plan(tmp_path_factory.mktemp("whole"))


def test_a_token_budget_lowers_activations(tmp_path, whole):
    parts = plan(tmp_path / "b", max_tokens_per_micro_batch=1000)
    assert parts.part.prompts == 1
    assert parts.memory["learning"]["activations"] < 0.4 * whole.memory["learning"]["activations"]
    assert parts.flops["forward"] == pytest.approx(whole.flops["forward"], rel=0.01)


def test_checkpointing_lowers_activations_and_costs_a_forward_pass(tmp_path, whole):
    again = plan(tmp_path, policy={"activation_checkpointing": True})
    assert again.memory["learning"]["activations"] < 0.7 * whole.memory["learning"]["activations"]
    assert again.flops["backward"] > 1.3 * whole.flops["backward"]


def test_a_wider_window_takes_cache_and_max_rows_bounds_it(tmp_path, whole):
    wider = [
        plan(tmp_path / str(rows), window=4, engine=TransformersEngine(max_rows=rows), max_tokens_per_micro_batch=400)
        for rows in (0, 32, 1)
    ]
    cache = [found.memory["rollout"]["KV cache"] for found in (whole, *wider)]
    assert cache[1] == pytest.approx(4 * cache[0], rel=0.01)
    assert cache[2] == pytest.approx(cache[0], rel=0.01)
    assert cache[3] == pytest.approx(cache[0] / 4, rel=0.01), "one group at least"


def test_an_adapters_gradients_are_told_from_weights_that_are_cast(tmp_path):
    found = plan(tmp_path, policy={"adapter": LoRA(rank=4), "dtype": "bfloat16"})
    gradients = 4 * found.parameters["adapter"]
    assert found.memory["optimizer step"]["gradients"] == gradients
    head = 4 * FLAT.vocabulary * FLAT.hidden  # of 16 bits, computed with in float32
    assert found.memory["learning"].get("weights as cast", 0) < head + gradients / 2


def test_references_take_what_they_are(tmp_path):
    pytest.importorskip("bitsandbytes")
    loss = NRTLoss(kl_coef=0.1)
    lora = {"adapter": LoRA(rank=4)}
    full = plan(tmp_path / "a", loss=loss, reference=FrozenReference())
    quantized = plan(tmp_path / "b", loss=loss, reference=QuantizedReference())
    disabled = plan(tmp_path / "c", loss=loss, reference=AdapterDisabledReference(), policy=lora)
    weights = full.memory["learning"]["weights"]
    assert full.memory["learning"]["reference"] == weights
    assert 0 < quantized.memory["learning"]["reference"] < 0.8 * weights
    assert disabled.memory["learning"]["reference"] == 0
    idle = plan(tmp_path / "d", reference=FrozenReference())
    assert idle.memory["learning"]["reference"] == 0, "its coefficient is 0"
    penalty = plan(tmp_path / "e", kl_penalty=KLPenalty(), reference=FrozenReference())
    assert penalty.memory == full.memory
    for scorer in (InitialBaseline(), ReferenceBaseline()):
        aside = plan(tmp_path / scorer.__class__.__name__, baseline_scorer=scorer, reference=FrozenReference())
        assert aside.memory["learning"]["reference"] == weights


class MyReference(Reference):
    """Its memory is unknown to the planner."""

    def load(self, policy) -> None:
        pass

    def logprobs(self, rollouts):
        raise NotImplementedError


class MyEngine(RolloutEngine):
    """Samples in the trainer's process in a way unknown to the planner."""

    def generate(self, policy, request, progress=None):
        raise NotImplementedError


class MyServer(MyEngine):
    own_weights = True


def test_what_the_planner_does_not_know_is_named(tmp_path):
    found = plan(tmp_path / "a", loss=NRTLoss(kl_coef=0.1), reference=MyReference(), engine=MyEngine())
    assert found.uncounted == ["reference MyReference", "engine MyEngine"]
    assert found.memory["learning"]["reference"] == 0
    assert "reference MyReference, engine MyEngine" in report(found, None)
    known = plan(tmp_path / "b", reference=MyReference(), engine=MyServer())  # idle, and in another process
    assert known.uncounted == []
    assert "WARNING" not in report(known, None)
    shared = plan(tmp_path / "c", engine=VLLMColocatedEngine(max_model_len=128))
    assert shared.uncounted == ["engine VLLMColocatedEngine"]


def test_sharding_divides_and_ddp_doubles_gradients(tmp_path):
    parts = {"max_tokens_per_micro_batch": 1000}  # whose gradients add up, and so are in memory at every peak
    one, two = plan(tmp_path / "a", **parts), plan(tmp_path / "b", Machine(devices=2), **parts)
    sharded = plan(tmp_path / "c", Machine(devices=2, sharded=True), **parts)
    assert sharded.memory["learning"]["weights"] == one.memory["learning"]["weights"] // 2
    assert two.tokens["sampled"] == 2 * one.tokens["sampled"]
    assert two.memory["learning"]["gradients"] == 2 * one.memory["learning"]["gradients"]


@pytest.mark.parametrize(("precision", "size"), [("32-true", 4), ("bf16-mixed", 2), ("bf16-true", 2)])
def test_sharded_weights_are_gathered_block_by_block_to_learn_and_whole_to_sample(tmp_path, precision, size):
    found = plan(tmp_path, Machine(precision, devices=4, sharded=True))
    network = build_policy(FLAT).network
    everything = sum(p.numel() for p in network.parameters())
    blocks = [sum(p.numel() for p in block.parameters()) for block in network.model.layers]
    root = everything - sum(blocks)
    stored = 2 if precision == "bf16-true" else 4
    for phase in found.memory.values():
        assert phase["weights"] == stored * everything // 4
        assert phase["optimizer"] == 2 * stored * everything // 4, "two moments"
        assert "weights as cast" not in phase
    assert found.memory["rollout"]["weights gathered"] == size * everything
    assert found.memory["learning"]["weights gathered"] == size * (root + 2 * max(blocks))
    assert found.memory["learning"]["gradients gathered"] == size * (root + 2 * max(blocks))
    for phase in ("learning", "optimizer step"):
        assert found.memory[phase]["gradients"] == stored * everything // 4


def test_of_an_adapter_only_its_gradients_are_gathered(tmp_path):
    found = plan(tmp_path, Machine(devices=2, sharded=True), policy={"adapter": LoRA(rank=4)})
    adapter = 4 * found.parameters["adapter"]
    assert found.memory["learning"]["gradients gathered"] <= adapter
    assert found.memory["learning"]["weights gathered"] > found.memory["learning"]["gradients gathered"]
    assert found.memory["rollout"]["weights gathered"] == 4 * sum(found.parameters[n] for n in ("base", "adapter"))


def test_times_are_work_over_speed_and_decoding_reads_weights_and_cache_for_every_token(tmp_path):
    lengths = dataclasses.replace(LENGTHS, prompts=2)
    found = plan(tmp_path, Machine(devices=3, accumulate=4), lengths, engine=TransformersEngine(max_rows=24))
    weights = 4 * found.parameters["base"]
    cache = found.memory["rollout"]["KV cache"] * (80 + 32) / (80 + 64)
    rounds = 4  # 2 prompts x K 8 at once, 4 batches
    fast, slow = Speed(tflops=1e6, gb=0.5), Speed(tflops=1e-3, gb=1e6)
    learning = sum(number for name, number in found.flops.items() if name != "rollout") / 3
    assert durations(found.flops, found.devices, found.decoding, fast)["rollout"] == pytest.approx(
        rounds * 64 * (weights + cache) / 0.5e9, rel=0.01
    )
    assert durations(found.flops, found.devices, found.decoding, slow) == pytest.approx(
        {"rollout": found.flops["rollout"] / 3e9, "learning": learning / 1e9}
    )
    assert "seconds of an optimizer step" in report(found, None, fast)
    assert "seconds" not in report(found, None)
    sft = plan(tmp_path, lengths=dataclasses.replace(LENGTHS, group_size=1, trace=0, thinking=False), kind=SFTModule)
    assert durations(sft.flops, sft.devices, sft.decoding, fast).keys() == {"learning"}


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed"])
def test_precision(tmp_path, whole, precision):
    half = plan(tmp_path, Machine(precision=precision))
    share = half.memory["learning"]["weights"] / whole.memory["learning"]["weights"]
    assert share == (0.5 if precision == "bf16-true" else 1.0)
    assert half.totals["learning"] < 0.8 * whole.totals["learning"]


def test_sft_has_no_rollout(tmp_path):
    lengths = dataclasses.replace(LENGTHS, group_size=1, trace=0, thinking=False)
    found = plan(tmp_path, lengths=lengths, kind=SFTModule)
    assert "rollout" not in found.memory
    assert found.tokens["scored"] == 4 * 40


NO_LORA = ("mamba2", "falcon_h1", "nemotron_h")  # PEFT puts no LoRA on their projections
FAMILIES = ["llama", "gpt2", "mixtral", "gpt_oss", "deepseek_v2", "qwen3_5_text", "gemma3_text"]
OTHERS = ["mistral", "qwen2", "qwen3", "qwen3_moe", "gemma", "gemma2", "deepseek_v3", "phi3", "granite", "olmo2",
          "smollm3", "glm4", "glm4_moe", "granitemoehybrid", "mamba2", "falcon_h1", "qwen3_next", "bloom", "opt", "mpt",
          "jamba", "nemotron_h", "lfm2", "llama4_text", "cohere2", "starcoder2", "exaone4"]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_any_architecture_is_planned_from_its_config_alone(tmp_path, family):
    config = AutoConfig.for_model(family, **SHAPE | SETTINGS.get(family, {}))
    policy = Sketch(config_only(tmp_path, config), adapter=None if family in NO_LORA else LoRA(rank=2))
    lengths = Lengths(prompts=1, group_size=2, prompt=12, trace=10, answer=5)
    found = make_plan(NRTModule(policy, sampling=Sampling(2, 10)), lengths, 1, Machine())
    assert found.totals["learning"] > found.memory["learning"]["weights"] > 0
    assert found.flops["rollout"] > 0
    report(found, None)


def test_a_reference_of_a_4_bit_policy_is_in_4_bits_too(tmp_path):
    pytest.importorskip("bitsandbytes")
    settings = {"adapter": LoRA(rank=4), "quantization": FourBit()}
    references = (FrozenReference(), QuantizedReference(), EMAReference())
    sizes = [
        plan(tmp_path / str(i), loss=NRTLoss(kl_coef=0.1), reference=reference, policy=settings).memory["learning"]
        for i, reference in enumerate(references)
    ]
    base, adapter = sizes[0]["weights"], sizes[0]["adapter"]
    assert [found["reference"] for found in sizes] == [base, base, base + adapter]


def test_the_report_names_the_largest_part_its_knob_and_warns(whole):
    text = report(whole, device_bytes=100 * MIB)
    assert "largest: activations" in text
    assert "max_tokens_per_micro_batch" in text
    assert "WARNING" in text
    assert "WARNING" not in report(whole, device_bytes=10**12)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_peaks_on_a_gpu_are_those_measured(tmp_path):
    work = dataclasses.replace(WORK, vocabulary=40_000, hidden=512, intermediate=1408, layers=12, heads=8, kv_heads=8)
    policy, rollouts = build_policy(work).to("cuda", torch.bfloat16), fixed_rollouts(work).to("cuda")
    policy.score(rollouts, baseline=True).logprobs.sum().backward()
    policy.zero_grad()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    policy.score(rollouts, baseline=True).logprobs.sum().backward()
    real = torch.cuda.max_memory_allocated() - before
    small = sketch(tmp_path, work, dtype="bfloat16")
    needs = of_all_layers(small, LENGTHS, "bf16-true", lambda mini: mini.learn(**LEARN))
    assert sum(needs.memory.values()) == pytest.approx(real, rel=0.2)
