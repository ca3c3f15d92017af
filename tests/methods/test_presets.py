"""Rewards, advantages and loss of every preset equal the published formulas in plain Python."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from functools import cache

import pytest
import torch
from cli.small_runs import CONFIGS
from lightning.pytorch import LightningDataModule, LightningModule

from methods import plain
from methods.hand_made import ENTROPY, GROUP, OWN, HandMade, Rollout, Tokens
from methods.plain import Expected, baselines, by_group, confidences
from nrt_lightning import (
    EMADeviationFilter,
    EMAReference,
    InitialBaseline,
    MinimumSpreadFilter,
    NRTModule,
    Policy,
)
from nrt_lightning.cli.lightning_cli import NRTCLI, Parser

METHODS = {path.stem: path for path in sorted((CONFIGS / "methods").glob("*.yaml"))}


@cache
def module_of(name: str) -> NRTModule:
    """The module of the command in the first line of the preset."""
    command = METHODS[name].read_text().splitlines()[0].removeprefix("# nrt-lightning fit ")
    args = [a.replace("configs/", f"{CONFIGS}/", 1) for a in shlex.split(command)]
    cli = NRTCLI(LightningModule, LightningDataModule, run=False, args=args, subclass_mode_model=True,
                 subclass_mode_data=True, auto_configure_optimizers=False, parser_class=Parser,
                 save_config_callback=None)  # fmt: skip
    return cli.model


@cache
def base() -> Policy:
    return Policy("embedded:registers-base").load()


def nrt(reward: Callable, clip: bool = True) -> Callable[[list[Rollout]], Expected]:
    """The paper's text: rewards clipped at the baseline, with divisor 32 and marker_rows all of the quickstart."""

    def expected(rows: list[Rollout]) -> Expected:
        rewards = [reward(confidences(r), baselines(r)) for r in rows]
        empty = [reward(baselines(r), baselines(r)) for r in rows]
        gains = [max(0.0, r - b) if clip else r for r, b in zip(rewards, empty)]
        advantages = by_group(gains, plain.normalized)
        reduce = plain.sums_over(32)
        loss = plain.trace_loss([r.sampled(False) for r in rows], advantages, plain.cispo, reduce)
        loss += 0.3 * reduce([[-x for x in r.marker.new] for r in rows])
        loss += reduce([[-x for x in r.answer.new] for r in rows])
        return Expected(rewards, advantages, loss)

    return expected


def authors(reward: Callable) -> Callable[[list[Rollout]], Expected]:
    """The authors' code: rewards not clipped, forced markers in the trace term, sums over all tokens / 512."""

    def expected(rows: list[Rollout]) -> Expected:
        rewards = [reward(confidences(r), baselines(r)) for r in rows]
        advantages = by_group(rewards, plain.normalized)
        reduce = plain.sums_over(512, average=False)
        loss = plain.trace_loss([r.trace + r.marker for r in rows], advantages, plain.cispo, reduce)
        loss += 0.3 * reduce([[-x for x in r.marker.new] if not r.emitted else [] for r in rows])
        loss += reduce([[-x for x in r.answer.new] for r in rows])
        return Expected(rewards, advantages, loss)

    return expected


def verifree(rows: list[Rollout]) -> Expected:
    rewards = [math.prod(confidences(r)) if r.emitted else 0.0 for r in rows]
    advantages = by_group(rewards, plain.leave_one_out)
    reduce = plain.sums_over(1)
    loss = plain.trace_loss([r.sampled(False) for r in rows], advantages, plain.reinforce, reduce)
    loss += reduce([[-reward * x for x in r.answer.new] for r, reward in zip(rows, rewards)])
    return Expected(rewards, advantages, loss)


def jepo(many: bool) -> Callable[[list[Rollout]], Expected]:
    def expected(rows: list[Rollout]) -> Expected:
        rewards = [plain.log_prob(confidences(r), []) if r.emitted else -math.inf for r in rows]
        estimate = plain.multi_sample if many else plain.leave_one_out
        advantages = by_group(rewards, lambda group: plain.scaled_and_clipped(estimate(group), group))
        weights = by_group(rewards, posterior) if many else [float(r.emitted) for r in rows]
        reduce, sampled = plain.sums_over(1), [r.sampled(False) for r in rows]
        loss = plain.trace_loss(sampled, advantages, plain.reinforce, reduce)
        loss += reduce([[-w * x for x in r.answer.new] for r, w in zip(rows, weights)])
        loss += 0.001 * plain.kl_loss(sampled, plain.k2, reduce)
        return Expected(rewards, advantages, loss)

    return expected


def posterior(rewards: list[float]) -> list[float]:
    p = [math.exp(r) for r in rewards]  # exp(-inf) is 0
    return [len(p) * x / sum(p) for x in p]


def log_prob_reward(mean: bool) -> Callable[[list[Rollout]], Expected]:
    def expected(rows: list[Rollout]) -> Expected:
        reward = plain.mean_log_prob if mean else plain.log_prob
        rewards = [reward(confidences(r), []) for r in rows]
        advantages = by_group(rewards, plain.leave_one_out)
        reduce = plain.sums_over(1)
        loss = plain.trace_loss([r.sampled(False) for r in rows], advantages, plain.reinforce, reduce)
        loss += reduce([[-x / (len(r.answer.new) if mean else 1) for x in r.answer.new] for r in rows])
        return Expected(rewards, advantages, loss)

    return expected


def policy_gradient(rows: list[Rollout], rewards: list[float], advantages: list[float], clip: tuple[float, float],
                    reduce: Callable, kl: float = 0.0, truncated: bool = True) -> Expected:  # fmt: skip
    """PPO on whole responses with a KL term; without truncated traces unless `truncated`."""
    sampled = [Tokens([], [], []) if r.truncated and not truncated else r.sampled(True) for r in rows]
    loss = plain.trace_loss(sampled, advantages, plain.ppo(*clip), reduce)
    return Expected(rewards, advantages, loss + kl * plain.kl_loss(sampled, plain.k3, reduce))


def rlpr(rows: list[Rollout]) -> Expected:
    rewards = []
    for r in rows:
        gain = max(0.0, plain.mean(confidences(r)) - plain.mean(baselines(r))) if r.emitted else 0.0
        grams = [tuple(r.trace_ids[i : i + 10]) for i in range(len(r.trace_ids) - 9)]
        repeated = any(grams.count(gram) >= 10 for gram in grams)
        rewards.append(0.9 * gain + 0.1 * (r.emitted and r.ended) - repeated)
    advantages = by_group(rewards, lambda group: plain.normalized(group, 1e-6))
    expected = policy_gradient(rows, rewards, advantages, (0.2, 0.27), plain.token_mean)
    expected.loss -= 0.001 * plain.token_mean([[-ENTROPY * x for x in r.sampled(True).new] for r in rows])
    return expected


def rlvr(rows: list[Rollout]) -> Expected:
    rewards = [float(r.emitted and r.ended and r.right) for r in rows]
    advantages = by_group(rewards, lambda group: plain.normalized(group, 1e-6))
    return policy_gradient(rows, rewards, advantages, (0.2, 0.2), plain.sequence_mean)


def hybrid(rows: list[Rollout]) -> Expected:
    rewards = [plain.geometric_mean(confidences(r), []) + (r.emitted and r.ended and r.right) for r in rows]
    advantages = by_group(rewards, plain.normalized)
    reduce = plain.sums_over(32)
    loss = plain.trace_loss([r.sampled(False) for r in rows], advantages, plain.cispo, reduce)
    loss += 0.3 * reduce([[-x for x in r.marker.new] for r in rows])
    loss += reduce([[-x for x in r.answer.new] for r in rows])
    return Expected(rewards, advantages, loss)


def dro(rows: list[Rollout]) -> Expected:
    rewards = []
    for n, r in enumerate(rows):
        group = rows[n // GROUP * GROUP :][:GROUP]
        spread = [plain.std([other.answer.old[i] for other in group]) for i in range(len(r.answer.old))]
        reflection = sum(s * (c - b) for s, c, b in zip(spread, r.answer.old, r.baseline))
        length = 1 - abs(len(r.answer.old) - len(r.own_ids)) / len(r.answer.old)
        rewards.append(reflection + length)
    advantages = by_group(rewards, plain.normalized)
    return policy_gradient(rows, rewards, advantages, (0.2, 0.2), plain.sums_over(32), kl=0.001, truncated=False)


def nover(rows: list[Rollout]) -> Expected:
    rewards = []
    for n, r in enumerate(rows):
        group = [x for x in rows[n // GROUP * GROUP :][:GROUP] if x.emitted and x.ended]
        if not (r.emitted and r.ended):
            rewards.append(0.0)
            continue
        better = sum(perplexity(x) < perplexity(r) for x in group)
        beaten = sum(len(x.trace_ids) > len(r.trace_ids) and perplexity(x) > perplexity(r) for x in group)
        rewards.append(1.0 + (len(group) - better) / len(group) + beaten / max(1, len(group) - 1))
    advantages = by_group(rewards, plain.centered)
    return policy_gradient(rows, rewards, advantages, (0.1, 0.28), plain.sums_over(32), kl=0.1, truncated=False)


def perplexity(r: Rollout) -> float:
    nll = -sum(r.answer.old) / len(r.answer.old)
    return math.exp(nll / max(1.0, 1.0 + math.log10(len(r.trace_ids))))


def intuitor(kl: float) -> Callable[[list[Rollout]], Expected]:
    def expected(rows: list[Rollout]) -> Expected:
        rewards = [certainty(r) for r in rows]
        advantages = by_group(rewards, lambda group: plain.normalized(group, 1e-6))
        return policy_gradient(rows, rewards, advantages, (0.2, 0.2), plain.token_mean, kl=kl)

    return expected


def latro(rows: list[Rollout]) -> Expected:
    values = [plain.log_prob(confidences(r), []) for r in rows]
    values = [2 * plain.mean(values) if r.truncated else v for r, v in zip(rows, values)]
    sampled = [r.sampled(False) for r in rows]
    rewards = [v - 0.05 * (sum(s.old) - sum(s.ref)) for v, s in zip(values, sampled)]
    advantages, reduce = by_group(rewards, plain.leave_one_out), plain.sums_over(1)
    loss = plain.trace_loss(sampled, advantages, plain.reinforce, reduce)
    return Expected(rewards, advantages, loss + reduce([[-x for x in r.answer.new] for r in rows]))


def right(r: Rollout) -> float:
    return float(r.emitted and r.ended and r.right)


def maxrl(rows: list[Rollout]) -> Expected:
    rewards = [right(r) for r in rows]
    advantages = by_group(rewards, lambda g: [(r - plain.mean(g)) / (plain.mean(g) + 1e-6) for r in g])
    return policy_gradient(rows, rewards, advantages, (0.2, 0.2), plain.token_mean)


def gspo(rows: list[Rollout]) -> Expected:
    rewards = [right(r) for r in rows]
    advantages = by_group(rewards, lambda group: plain.normalized(group, 1e-6))
    losses = []
    for r, a in zip(rows, advantages):
        tokens = r.sampled(True)
        ratio = math.exp(plain.mean([new - old for new, old in zip(tokens.new, tokens.old)]))
        losses.append(-min(ratio * a, min(max(ratio, 1 - 3e-4), 1 + 4e-4) * a))
    return Expected(rewards, advantages, plain.mean(losses))


def gdpo(rows: list[Rollout]) -> Expected:
    gains = [max(0.0, plain.mean(confidences(r)) - plain.mean(baselines(r))) if r.emitted else 0.0 for r in rows]
    formats = [float(r.emitted and r.ended) for r in rows]
    gains, formats = by_group(gains, plain.normalized), by_group(formats, plain.normalized)
    rewards = [0.9 * gain + 0.1 * form for gain, form in zip(gains, formats)]
    return policy_gradient(rows, rewards, plain.normalized(rewards, 1e-6), (0.2, 0.2), plain.token_mean)


def jepo_with_rl(rows: list[Rollout]) -> Expected:
    matches = [right(r) for r in rows]
    bounds = [plain.log_prob(confidences(r), []) if r.emitted else -math.inf for r in rows]
    groups = [slice(start, start + GROUP) for start in range(0, len(rows), GROUP)]
    rewards = [x for g in groups for x in (matches[g] if any(matches[g]) else bounds[g])]
    advantages = by_group(rewards, lambda group: plain.scaled_and_clipped(plain.leave_one_out(group), group))
    reduce, sampled = plain.sums_over(1), [r.sampled(False) for r in rows]
    loss = plain.trace_loss(sampled, advantages, plain.reinforce, reduce)
    loss += reduce([[-x for x in r.answer.new] if r.emitted else [] for r in rows])
    return Expected(rewards, advantages, loss + 0.001 * plain.kl_loss(sampled, plain.k2, reduce))


def agreement(majority: bool) -> Callable[[list[Rollout]], Expected]:
    def expected(rows: list[Rollout]) -> Expected:
        answers = [OWN[n] if r.emitted and r.ended else None for n, r in enumerate(rows)]
        rewards = by_group(answers, winners if majority else shares)
        advantages = by_group(rewards, lambda group: plain.normalized(group, 1e-6))
        reduce = plain.token_mean if majority else plain.sequence_mean
        return policy_gradient(rows, rewards, advantages, (0.2, 0.2), reduce, kl=0.001 if majority else 0.0)

    return expected


def winners(answers: list[str | None]) -> list[float]:
    votes = [a for a in answers if a is not None]
    return [float(a is not None and a == max(votes, key=votes.count)) for a in answers]


def shares(answers: list[str | None]) -> list[float]:
    return [0.0 if a is None else answers.count(a) / len(answers) for a in answers]


def rent(rows: list[Rollout]) -> Expected:
    rewards = [-plain.mean(entropies) for entropies, _ in map(own, rows)]
    advantages = by_group(rewards, lambda group: plain.normalized(group, 1e-6))
    return policy_gradient(rows, rewards, advantages, (0.2, 0.2), plain.token_mean, kl=0.001)


def em_rl(sequence: bool) -> Callable[[list[Rollout]], Expected]:
    def expected(rows: list[Rollout]) -> Expected:
        rewards = [sum(logprobs) if sequence else -sum(entropies) for entropies, logprobs in map(own, rows)]
        advantages, sampled = by_group(rewards, plain.leave_one_out), [r.sampled(True) for r in rows]
        loss = plain.trace_loss(sampled, advantages, plain.reinforce, plain.sequence_mean)
        return Expected(rewards, advantages, loss + 0.001 * plain.kl_loss(sampled, plain.k3, plain.sequence_mean))

    return expected


def own(r: Rollout) -> tuple[list[float], list[float]]:
    """Entropies and log-probs of the response's tokens, from the logits of the base."""
    from methods.hand_made import QUESTIONS

    policy = base()
    prompt = policy.tokenizer(QUESTIONS[r.prompt])["input_ids"]
    response = r.response_ids(policy.markup.marker_ids[0], policy.tokenizer.eos_token_id)
    with policy.evaluating():
        logits = policy.network(torch.tensor([prompt + response])).logits[0].double().tolist()
    entropies, logprobs = [], []
    for index, token in enumerate(response, start=len(prompt) - 1):
        total = math.log(sum(math.exp(x) for x in logits[index]))
        entropies.append(-sum(math.exp(x - total) * (x - total) for x in logits[index]))
        logprobs.append(logits[index][token] - total)
    return entropies, logprobs


def certainty(r: Rollout) -> float:
    """Mean of KL(uniform || pi) over the response tokens, from the logits of the base."""
    from methods.hand_made import QUESTIONS

    policy = base()
    prompt = policy.tokenizer(QUESTIONS[r.prompt])["input_ids"]
    response = r.response_ids(policy.markup.marker_ids[0], policy.tokenizer.eos_token_id)
    with policy.evaluating():
        logits = policy.network(torch.tensor([prompt + response])).logits[0].double().tolist()
    values = []
    for position in range(len(prompt) - 1, len(prompt) + len(response) - 1):
        total = math.log(sum(math.exp(x) for x in logits[position]))
        size = len(logits[position])
        values.append(sum(-math.log(size) - (x - total) for x in logits[position]) / size)
    return plain.mean(values)


EXPECTED: dict[str, Callable[[list[Rollout]], Expected]] = {
    "nrt_ws_neg_log_prob": nrt(plain.ws_neg_log_prob),
    "nrt_ws_inverse_prob": nrt(plain.ws_inverse_prob),
    "nrt_gm": nrt(plain.geometric_mean),
    "nrt_am": nrt(plain.arithmetic_mean),
    "nrt_log_prob": nrt(plain.log_prob),
    "nrt_prob": nrt(plain.prob),
    "nrt_authors": authors(plain.ws_neg_log_prob),
    "rlpr_reimplemented": authors(plain.arithmetic_mean),
    "verifree_reimplemented": authors(plain.prob),
    "jepo_reimplemented": authors(plain.log_prob),
    "rlpr_original": rlpr,
    "verifree_original": verifree,
    "jepo_original": jepo(many=False),
    "jepo_multi_sample": jepo(many=True),
    "log_prob_reward": log_prob_reward(mean=False),
    "mean_log_prob_reward": log_prob_reward(mean=True),
    "rlvr": rlvr,
    "hybrid": hybrid,
    "dro": dro,
    "nover": nover,
    "intuitor": intuitor(0.005),
    "intuitor_7b": intuitor(0.01),
    "latro": latro,
    "maxrl": maxrl,
    "gspo": gspo,
    "gdpo": gdpo,
    "jepo_with_rl": jepo_with_rl,
    "ttrl": agreement(majority=True),
    "empo": agreement(majority=False),
    "rent": rent,
    "em_rl_token": em_rl(sequence=False),
    "em_rl_sequence": em_rl(sequence=True),
}
SIZES = {"rlpr_llama": "rlpr_original", "rlpr_gemma": "rlpr_original"}  # other settings of the same method
EXPECTED |= {name: EXPECTED[of] for name, of in SIZES.items()}


def test_every_preset_is_checked() -> None:
    assert EXPECTED.keys() | {"sft"} == METHODS.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_rewards_advantages_and_loss_equal_the_formulas(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, batch = module_of(name), HandMade.make(base())
    monkeypatch.setattr(module.policy, "score", batch.scores)
    monkeypatch.setattr(
        type(module.method.reference), "logprobs", lambda self, rollouts: batch.logprobs(rollouts, "ref")
    )
    monkeypatch.setattr(module, "log_training", lambda *args: None)
    out = module.training_step(batch.prompts(module.method.train_response, module.method.signals), 0)
    expected = EXPECTED[name](batch.rollouts)
    close = {"rel": 2e-6, "abs": 1e-7}
    assert out["reward"].tolist() == pytest.approx(expected.rewards, **close)
    assert out["advantages"].tolist() == pytest.approx(expected.advantages, **close | {"abs": 1e-5})
    assert float(out["loss"]) == pytest.approx(expected.loss, **close | {"rel": 1e-5})


def test_filters_baselines_and_references() -> None:
    rlpr = module_of("rlpr_original").method
    for name, beta in (("rlpr_llama", 0.9), ("rlpr_gemma", 1.0)):
        other = module_of(name).method
        assert other.filters == [EMADeviationFilter(beta=beta, momentum=0.99, filter_from=11)]
        assert (other.sampling.temperature, other.sampling.group_size) == (0.6, 8)
    assert [module_of(name).method.sampling.group_size for name in ("intuitor", "intuitor_7b")] == [7, 14]
    assert isinstance(rlpr.baseline_scorer, InitialBaseline)
    assert rlpr.filters == [EMADeviationFilter(beta=0.5, momentum=0.99, filter_from=11)]
    assert module_of("dro").method.filters == [MinimumSpreadFilter(0.01)]
    reference = module_of("nover").method.reference
    assert isinstance(reference, EMAReference)
    assert (reference.update_rate, reference.every_n_steps) == (0.4, 100)


def test_the_batch_distinguishes_the_methods() -> None:
    rows = HandMade.make(base()).rollouts
    rankings = {tuple(e.advantages) for e in (f(rows) for f in EXPECTED.values())}
    losses = {round(f(rows).loss, 9) for f in EXPECTED.values()}
    assert len(losses) == len(EXPECTED) - len(SIZES)
    assert len(rankings) > len(losses) - 9  # some differ only in the loss


def test_sft_is_the_mean_cross_entropy_of_the_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    module, batch = module_of("sft"), HandMade.make(base())
    rows = [batch.rollouts[0].answer.new, batch.rollouts[GROUP].answer.new]
    width = max(map(len, rows))
    logprobs = torch.tensor([row + [0.0] * (width - len(row)) for row in rows], dtype=torch.float64)
    monkeypatch.setattr(module.policy, "score", lambda rollouts: type("Scores", (), {"logprobs": logprobs}))
    monkeypatch.setattr(module, "log", lambda *args, **kwargs: None)
    prompts = batch.prompts(response=False)
    prompts.rollouts = None
    assert float(module.training_step(prompts, 0)) == pytest.approx(-plain.mean([x for row in rows for x in row]))
