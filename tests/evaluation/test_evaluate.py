import pytest
import torch
from short_runs import nrt_module
from tiny import make_prompts

from nrt_lightning import ExactMatch, Policy, SFTModule, TransformersEngine
from nrt_lightning.evaluation.evaluate import checked_matches, holds, right_answers, with_checks
from nrt_lightning.evaluation.probe import answers_after
from nrt_lightning.functional.padding import pad_rows
from nrt_lightning.metrics import ReasoningMetrics
from nrt_lightning.rollouts import Generations
from nrt_lightning.rollouts.answering import nothing


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy("embedded:registers-base").load()


def generations(policy: Policy, texts: list[str], limit: int = 99) -> Generations:
    """What greedy decoding returns for these texts, each followed by the end token."""
    ends = [
        torch.tensor([*policy.tokenizer(t, add_special_tokens=False)["input_ids"], policy.eos_ids[0]]) for t in texts
    ]
    ids, mask = pad_rows([ids[:limit] for ids in ends])
    return Generations(ids, mask, stopped=torch.tensor([len(end) <= limit for end in ends]))


class Writes(TransformersEngine):
    """Ends every trace with the marker at once, and answers each question with a given text."""

    def __init__(self, answers: dict[str, str]) -> None:
        super().__init__()
        object.__setattr__(self, "answers", answers)

    def generate(self, policy, request, progress=None):
        questions = [policy.tokenizer.decode(ids[mask], skip_special_tokens=True)
                     for ids, mask in zip(request.prompt_ids, request.prompt_mask)]  # fmt: skip
        if policy.markup.marker_ids[0] in request.stop_ids:
            marker = torch.full((len(questions), 1), policy.markup.marker_ids[0])
            return Generations(marker, marker > 0, stopped=marker[:, 0] > 0)
        return generations(policy, [self.answers[q.strip()] for q in questions], request.max_new_tokens)


QUESTIONS = {  # by question: reference answer, the policy's answer, right
    "a1": ("d3", "d3", True),
    "a2": ("d3", "d3,c0", False),  # begins with the reference answer and goes on
    "a3": ("d3,c0,b1,a2", "d3,c0,b1,a2", True),
    "a4": ("d3,c0", "d3,c0" + 20 * ",c0", False),
    "b1": ("d3", "d3" + 9 * "4", False),
    "b2": ("d3,c0,b1,a2", "d3", False),
}


def evaluated(policy: Policy, make, size: int, **settings) -> dict[str, float]:
    engine = Writes({question: written for question, (_, written, _) in QUESTIONS.items()})
    module = make(policy=policy, engine=engine, **settings)
    rows = list(QUESTIONS.items())
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        prompts = make_prompts(policy, [question for question, _ in part], [answer for _, (answer, *_) in part])
        for row in prompts.rows:
            row.checks = ("d3", "4")
        module.evaluate(prompts)
    return {name: float(value) for name, value in module.metrics.compute().items()}


@pytest.mark.parametrize("make", [nrt_module, SFTModule])
@pytest.mark.parametrize("metrics", [None, [ExactMatch()]])
def test_exact_match_does_not_depend_on_the_batch_and_asks_whether_the_answer_ended(make, metrics, policy):
    found = [evaluated(policy, make, size, metrics=metrics) for size in (1, 2, 3, 6)]
    right = sum(right for *_, right in QUESTIONS.values()) / len(QUESTIONS)
    names = {"exact_match", "exact_match_forced"} | ({"ExactMatch"} if metrics else set())
    names |= {"exact_match_without_trace"} if make is nrt_module else set()
    for values in found:
        assert {name: values[name] for name in names} == pytest.approx(dict.fromkeys(names, right))
        # "4" stands behind the fifth token of b1, of which two more than the reference answer's three are read.
        assert values["checked_match"] == values["checked_match_forced"] == found[0]["checked_match"]
    assert found[0]["checked_match"] == pytest.approx(1 / 6)


def test_right_answers_of_the_probe_do_not_depend_on_the_batch(policy):
    engine = Writes({question: written for question, (_, written, _) in QUESTIONS.items()})
    questions, answers = list(QUESTIONS), [answer for answer, *_ in QUESTIONS.values()]

    def right(rows: slice) -> list[bool]:
        prompts = make_prompts(policy, questions[rows], answers[rows])
        return right_answers(policy, prompts, answers_after(policy, engine, prompts, nothing(prompts))).tolist()

    expected = [right for *_, right in QUESTIONS.values()]
    assert right(slice(0, 6)) == [answer for n in range(6) for answer in right(slice(n, n + 1))] == expected


@pytest.mark.parametrize("written", ["d3", " d3", "d3 ", "\nd3\n"])
def test_white_space_around_an_answer_does_not_count(policy, written):
    module = nrt_module(policy=policy, engine=Writes({"a1": written}))
    module.evaluate(make_prompts(policy, ["a1"], ["d3"]))
    assert module.metrics.compute()["exact_match"] == 1


@pytest.mark.parametrize(
    ("text", "pieces", "held"),
    [
        ("e is 2, b 3", ("e is 2", "b 3"), True),
        ("b 3, e is 2", ("e is 2", "b 3"), False),
        ("e is 2", ("e is 2", "e is 2"), False),
        ("e is 3, b 3", ("e is 2", "b 3"), False),
        ("anything", (), True),
    ],
)
def test_pieces_are_held_one_after_another(text, pieces, held):
    assert holds(text, pieces) == held


def test_only_rows_that_check_something_are_counted(policy):
    prompts = make_prompts(policy, ["a4b*2c+2d+3?dc:"] * 4, ["d3,c0"] * 4)
    for row, checks in zip(prompts.rows, [("d3",), ("d4",), (), ("d3",)]):
        row.checks = checks
    prompts.counted = torch.tensor([True, True, True, False])
    assert with_checks(prompts).tolist() == [True, True, False, False]
    answers = generations(policy, ["d3,c4"] * 4)
    held = checked_matches(policy, prompts, answers)
    assert held.tolist() == [True, False, True, True]
    metrics = ReasoningMetrics()
    metrics.update(counted=with_checks(prompts), checked_match=held)
    assert metrics.compute()["checked_match"] == 0.5


def test_rows_without_checks_report_none(policy):
    module = nrt_module(policy=policy)
    prompts = make_prompts(policy, ["a4b*2c+2d+3?dc:"], ["d3,c0"])
    found = module.evaluate(prompts)
    assert "checked_match" not in module.metrics.compute()
    assert found.logprobs.shape == found.baseline_logprobs.shape == prompts.answer_ids.shape
    prompts.rows[0].checks = ("3",)
    module.evaluate(prompts)
    assert module.metrics.compute()["checked_match_forced"] in (0, 1)
