import math

import pytest

from nrt_lightning import NRTModule, Policy, Sampling
from nrt_lightning.errors import InputError

WRONG = {
    "group_size": (0, -1, None),
    "max_trace_tokens": (-3, None, math.inf),
    "max_answer_tokens": (0, None),
    "temperature": (-1.0, math.nan, math.inf, "1"),
    "answer_temperature": (-0.5, math.nan),
    "top_p": (0.0, 5.0, None),
    "top_k": (-1, True),
    "refill_rounds": (-1, None),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_numbers_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(InputError, match=rf"^sampling\.{name}={value!r} is "):
        Sampling(**{name: value})


def test_bounds_are_in_range():
    Sampling(1, 0, 1, temperature=0, top_p=1, top_k=0, answer_temperature=0.0, refill_rounds=0)


def test_so_is_the_temperature_of_prediction():
    with pytest.raises(InputError, match=r"predict_temperature=-1"):
        NRTModule(Policy("embedded:registers-base"), predict_temperature=-1)
