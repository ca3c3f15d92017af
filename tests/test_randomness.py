"""Counter-based random numbers are uniform, independent and reproducible."""

import pytest
import torch

from nrt_lightning.randomness import hashed, row_keys, uniforms


def splitmix64(state: int, count: int) -> list[int]:
    """The published generator, in Python integers."""
    top, out = 2**64, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % top
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % top
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % top
        out.append(z ^ (z >> 31))
    return out


@pytest.mark.parametrize("key", [0, 1, 2**62, -1, -(2**63), 1234567890123456789])
def test_numbers_equal_splitmix64(key):
    got = uniforms(torch.tensor([key]), 5)[:, 0]
    expected = [number // 2**40 / 2**24 for number in splitmix64(key % 2**64, 5)]
    assert got.tolist() == expected


def test_numbers_are_uniform_and_uncorrelated():
    keys = torch.tensor(row_keys(0, [str(i) for i in range(500)]))
    numbers = uniforms(keys, 400).double()  # [400, 500]
    assert 0 <= numbers.min() < numbers.max() < 1
    counts = torch.histc(numbers, 64, 0, 1)
    expected = numbers.numel() / 64
    chi_square = ((counts - expected) ** 2 / expected).sum()  # mean 63, standard deviation 11
    assert 20 < chi_square < 120
    centered = numbers - 0.5
    noise = 4 * (1 / 12) / numbers.numel() ** 0.5
    assert abs(centered.mean()) < noise * 12**0.5
    assert abs((centered[1:] * centered[:-1]).mean()) < noise, "between consecutive numbers of a row"
    assert abs((centered[:, 1:] * centered[:, :-1]).mean()) < noise, "between neighboring rows"


def test_numbers_of_a_row_do_not_depend_on_other_rows():
    alone = uniforms(torch.tensor(row_keys(3, ["b"])), 4)
    among = uniforms(torch.tensor(row_keys(3, ["a", "b", "c"])), 9)
    assert torch.equal(alone[:, 0], among[:4, 1])
    assert not torch.equal(alone, uniforms(torch.tensor(row_keys(4, ["b"])), 4)), "the seed matters"


def test_hashes_of_neighboring_values_differ_in_half_of_the_bits():
    bits = hashed(torch.arange(64)) ^ hashed(torch.arange(64) + 1)
    flipped = [bin(int(b) % 2**64).count("1") for b in bits]
    assert 28 < sum(flipped) / len(flipped) < 36, "half of 64 bits"
