import math
from fractions import Fraction

import numpy as np
import pytest

from nrt_lightning.errors import InputError
from nrt_lightning.functional import check_at_least, check_fraction, check_interval

NO_NUMBERS = [None, "3", True, math.nan, [1], 1j]


@pytest.mark.parametrize("value", [*NO_NUMBERS, math.inf, -math.inf], ids=repr)
def test_what_is_no_finite_number_is_refused_by_name(value):
    for check in (lambda: check_at_least("rows", value, 0), lambda: check_fraction("rows", value)):
        with pytest.raises(InputError) as error:
            check()
        assert str(error.value).startswith(f"rows={value!r} is not a finite number")


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_neither_is_it_a_bound(value):
    with pytest.raises(InputError, match="low="):
        check_interval("low", value, "high", 1)
    with pytest.raises(InputError, match="high="):
        check_interval("low", 0, "high", value)
    with pytest.raises(InputError, match="cap="):
        check_at_least("cap", value, 0, infinite=True)


def test_an_upper_bound_may_be_infinite():
    check_at_least("cap", math.inf, 0, above=True, infinite=True)
    check_interval("low", 0, "high", math.inf)


@pytest.mark.parametrize(
    "value", [1, 10**400, 1.0, np.float32(1), np.int64(1), Fraction(1)], ids=lambda v: repr(v)[:20]
)
def test_all_kinds_of_numbers_are_compared(value):
    check_at_least("rows", value, 1)
    with pytest.raises(InputError, match="above"):
        check_at_least("rows", value, value, above=True)


def test_fractions_above_0():
    check_fraction("top_p", 1.0, above=True)
    with pytest.raises(InputError, match=r"top_p=0.*above 0"):
        check_fraction("top_p", 0, above=True)
