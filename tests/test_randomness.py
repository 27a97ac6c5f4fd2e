"""Random numbers are functions of the seed and of what they are for."""

from __future__ import annotations

import itertools

import pytest

from gpt2 import randomness
from gpt2.errors import UserError

PURPOSES = [
    randomness.BATCH,
    randomness.NOISE,
    randomness.PROMPT,
    randomness.SAMPLE,
    randomness.WEIGHTS,
]


def test_the_same_thing_has_the_same_numbers_whatever_was_drawn_before() -> None:
    first = randomness.generator(3, randomness.SAMPLE, 7, 2).random(5).tolist()
    randomness.generator(3, randomness.SAMPLE, 7, 1).random(100)
    assert randomness.generator(3, randomness.SAMPLE, 7, 2).random(5).tolist() == first


def test_seeds_purposes_and_places_have_numbers_of_their_own() -> None:
    drawn = [
        randomness.generator(seed, purpose, first, second).random()
        for seed, purpose, first, second in itertools.product(
            (0, 1, 2, 2**32, 2**80), PURPOSES, (0, 1, 1000), (0, 1, 1000)
        )
    ]
    assert len(set(drawn)) == len(drawn) == 5 * 5 * 3 * 3


def test_neighbouring_places_are_not_alike() -> None:
    """The first number of each, which is all that a sample takes, is spread evenly."""
    drawn = [
        randomness.generator(0, randomness.SAMPLE, sample, position).random()
        for sample in range(40)
        for position in range(50)
    ]
    # The mean of 2,000 even numbers has a deviation of 0.0065, each tenth one of 13 from 200.
    assert sum(drawn) / 2000 == pytest.approx(0.5, abs=4 * 0.0065)
    for tenth in range(10):
        count = sum(tenth / 10 <= number < (tenth + 1) / 10 for number in drawn)
        assert abs(count - 200) < 5 * 13.4


def test_a_seed_is_taken_or_made_up() -> None:
    for seed in (0, 1, 2**64):
        assert randomness.check_seed(seed) == seed
    made_up = {randomness.check_seed(None) for _ in range(10)}
    assert len(made_up) > 1
    assert all(type(seed) is int and 0 <= seed < 2**32 for seed in made_up)


@pytest.mark.parametrize("seed", [-1, 1.0, "1", True, [1]])
def test_a_seed_that_is_no_count_is_refused(seed: object) -> None:
    with pytest.raises(UserError, match="seed must be a whole number at least 0, not "):
        randomness.check_seed(seed)
