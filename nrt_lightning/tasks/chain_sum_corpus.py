"""Text for further pretraining a base on chain sums: single steps that are right, worked sums that mostly are not."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from typing_extensions import override

from nrt_lightning.data.sources import QASource
from nrt_lightning.errors import InputError
from nrt_lightning.functional.validation import check_at_least
from nrt_lightning.structures import Row
from nrt_lightning.tasks.gym_items import split_of

ASKS = "State the final answer to the following arithmetic problem:"  # as reasoning-gym's chain_sum
HABITS = ("right", "forgets", "miscopies", "unrelated", "guesses")


@dataclass
class SumHabits:
    """Relative weights of what stands after a question.

    Args:
        right: weight of all steps and the right answer.
        forgets: weight of all steps but the last one, and its result as the answer.
        miscopies: weight of steps with one other term than the question has.
        unrelated: weight of the steps of another sum.
        guesses: weight of a random answer without steps.
    """

    right: float = 0.15
    forgets: float = 0.5
    miscopies: float = 0.1
    unrelated: float = 0.1
    guesses: float = 0.15

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 0:
                raise InputError(f"SumHabits({name}={value!r}): out of range. Give a weight of at least 0.")
        if not any(vars(self).values()):
            raise InputError(f"SumHabits: {', '.join(HABITS)} are all 0. Give one of them a weight above 0.")


@dataclass
class ChainSumCorpus(QASource):
    """Documents on sums of one-digit numbers, for `SFTModule`: the question of a row is a document's first word.

    Half of the documents are lists of single equations, all of them right. The others are questions of the split
    `corpus` of `ReasoningGymSource("chain_sum")`, worked out with the bad habits of `SumHabits`. No question of
    another split is in the text, and no such sum is worked out in place of another. So the base learns the steps and
    the form, and not to reason well.

    Args:
        size: number of documents; a larger size only appends documents.
        min_terms: fewest terms of a worked sum.
        max_terms: most terms of a worked sum.
        lists: fraction of the documents that are lists of equations.
        equations: equations of a list.
        sums: worked sums of one of the other documents.
        seed: seed of the sampling.
        marker: text between trace and answer.
        habits: weights of what follows a question.

    Example:
        >>> row = ChainSumCorpus(size=1, lists=1.0, equations=3).rows()[0]
        >>> row.question + row.answer
        '-3 - 1 = -4, -18 + 9 = -9, -11 + 5 = -6'
    """

    size: int = 1440
    min_terms: int = 3
    max_terms: int = 4
    lists: float = 0.5
    equations: int = 8
    sums: int = 2
    seed: int = 0
    marker: str = " =>"
    habits: SumHabits = field(default_factory=SumHabits)

    def __post_init__(self) -> None:
        for name, least in {"size": 1, "min_terms": 3, "equations": 2, "sums": 1}.items():
            check_at_least(f"ChainSumCorpus.{name}", getattr(self, name), least)
        check_at_least("ChainSumCorpus.max_terms", self.max_terms, self.min_terms)
        if not 0 <= self.lists <= 1:
            raise InputError(f"ChainSumCorpus.lists={self.lists} is out of range. Give a number from 0 to 1.")

    @override
    def rows(self) -> list[Row]:
        rng = random.Random(f"chain sums {self.seed}")
        rows = []
        for index in range(self.size):
            text = self.equation_list(rng) if rng.random() < self.lists else self.worked_sums(rng)
            first, space, rest = text.partition(" ")  # a space begins a token
            name = f"chain-sums-{self.seed}-{index}"
            message = {"role": "user", "content": first}
            rows.append(Row(name, [message], answer=space + rest, origin=f"ChainSumCorpus: {name}"))
        return rows

    def equation_list(self, rng: random.Random) -> str:
        """Sample right equations that have nothing to do with each other."""
        lowest, highest = -9 * (self.max_terms - 2), 9 * (self.max_terms - 1)
        written = [equation(rng.randint(lowest, highest), signed(rng)) for _ in range(self.equations)]
        return ", ".join(written)

    def worked_sums(self, rng: random.Random) -> str:
        """Sample questions with what follows them, each ended by an empty line."""
        return "".join(f"Question: {question}\nReasoning:{rest}\n\n" for question, rest in self.sample(rng))

    def sample(self, rng: random.Random) -> list[tuple[str, str]]:
        """Sample questions, and what follows each."""
        pairs = []
        for _ in range(self.sums):
            count = rng.randint(self.min_terms, self.max_terms)
            (habit,) = rng.choices(HABITS, [getattr(self.habits, name) for name in HABITS])
            while True:  # until neither the question nor the sum that is worked out stands in another split
                terms = [rng.randint(0, 9), *(signed(rng) for _ in range(count - 1))]
                worked = self.worked(terms, habit, rng)
                if all(is_free(found, self.min_terms) for found in (terms, worked)):
                    break
            rest = f" {steps(worked)}{self.marker}{sum(worked)}"
            if habit == "guesses":
                rest = f"{self.marker}{rng.randint(-9, 9 * (count - 1))}"
            pairs.append((question_of(terms), rest))
        return pairs

    def worked(self, terms: list[int], habit: str, rng: random.Random) -> list[int]:
        """The terms of the sum that is worked out in place of the question's."""
        if habit == "forgets":
            return terms[:-1]
        if habit == "unrelated":
            count = rng.randint(self.min_terms, self.max_terms)
            return [rng.randint(0, 9), *(signed(rng) for _ in range(count - 1))]
        if habit == "miscopies":
            place = rng.randrange(len(terms))
            other = rng.choice([digit for digit in range(10) if digit != abs(terms[place])])
            return [*terms[:place], -other if terms[place] < 0 else other, *terms[place + 1 :]]
        return terms


def question_of(terms: list[int]) -> str:
    """A sum as a question.

    >>> question_of([6, 9, -8])
    'State the final answer to the following arithmetic problem: 6 + 9 - 8 ='
    """
    return f"{ASKS} {written_sum(terms)} ="


def is_free(terms: list[int], min_terms: int) -> bool:
    """Whether a sum is too short for a question, or belongs to the split `corpus`."""
    return len(terms) < min_terms or split_of(question_of(terms)) == "corpus"


def signed(rng: random.Random) -> int:
    """Sample a digit that is added or subtracted."""
    return rng.choice((1, -1)) * rng.randint(0, 9)


def equation(left: int, term: int) -> str:
    """A step.

    >>> equation(6, 9), equation(-1, -8)
    ('6 + 9 = 15', '-1 - 8 = -9')
    """
    return f"{left} {'-' if term < 0 else '+'} {abs(term)} = {left + term}"


def written_sum(terms: list[int]) -> str:
    """A sum as the question has it.

    >>> written_sum([6, 9, -8])
    '6 + 9 - 8'
    """
    return " ".join([str(terms[0]), *(f"{'-' if term < 0 else '+'} {abs(term)}" for term in terms[1:])])


def steps(terms: list[int]) -> str:
    """A sum, worked out.

    >>> steps([6, 9, -8])
    '6 + 9 = 15, 15 - 8 = 7'
    """
    return ", ".join(equation(sum(terms[:place]), terms[place]) for place in range(1, len(terms)))
