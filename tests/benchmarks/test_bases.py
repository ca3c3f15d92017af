"""The shipped bases have the skills listed in docs/results.md, and guesses without a trace are far from answers."""

import pytest

from benchmarks.bases import TASKS, skills
from nrt_lightning.assets import MADE_UP_REPORTS_BASE, POINTERS_BASE, REGISTERS_BASE, REPORTS_BASE

BASES = (REGISTERS_BASE, REPORTS_BASE, MADE_UP_REPORTS_BASE, POINTERS_BASE)


@pytest.mark.parametrize(
    ("base", "task", "least", "most", "reading"),
    [
        (REGISTERS_BASE, "registers", 0.08, 0.25, 0.9),
        (REPORTS_BASE, "reports", 0.004, 0.03, 0.7),
        (MADE_UP_REPORTS_BASE, "reports", 0.004, 0.03, 0.5),
        (POINTERS_BASE, "pointers", 0.06, 0.2, 0.9),
    ],
)
def test_a_base_now_and_then_writes_a_useful_trace_and_can_read_it(base, task, least, most, reading):
    found = skills(str(base), TASKS[task], questions=96)
    assert least < found.useful < most
    assert found.useful <= found.worked + 0.01
    assert found.reading > reading
    assert found.guessing < 0.3


def test_clipping_takes_the_punishment_from_traces_that_help_less_than_none():
    for treatment in skills(str(MADE_UP_REPORTS_BASE), TASKS["reports"], questions=96).treatments.values():
        assert treatment.clipped[0] >= treatment.unclipped[0] > 0, "useful traces stand out more"


@pytest.mark.parametrize("base", BASES, ids=lambda path: path.name)
def test_a_base_is_small(base):
    assert sum(path.stat().st_size for path in base.iterdir()) < 1_000_000


@pytest.mark.parametrize(
    ("task", "question", "trace", "useful", "worked"),
    [
        ("registers", "a4b*2c+2d+3?dc:", "b 3 c 0 d 3", True, True),
        ("registers", "a4b*2c+2d+3?dc:", "b*2=1 c+2=0 d+3=3", True, True),
        ("registers", "a4b*2c+2d+3?dc:", "b3;c0;d4", False, True),
        ("registers", "a4b*2c+2d+3?dc:", "d3,c0", True, False),
        ("registers", "a4b*2c+2d+3?dc:", "we knew it.", False, False),
        ("pointers", "cf ad ga hb eh bg de fc?a42:", "1ad 2de 3eh 4hb", True, True),
        ("pointers", "cf ad ga hb eh bg de fc?a42:", "1d 2e 3h 4b", True, True),
        ("pointers", "cf ad ga hb eh bg de fc?a42:", "1d 2f 3c 4b", False, True),
    ],
)
def test_traces_are_read_as_the_base_writes_them(task, question, trace, useful, worked):
    assert (TASKS[task].useful(question, trace), TASKS[task].worked(question, trace)) == (useful, worked)
