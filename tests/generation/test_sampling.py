"""The next token is drawn from the distribution it should be, against a slow reference."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from gpt2.errors import UserError
from gpt2.generation.sampling import SamplingSettings, choose, distribution, nucleus


def slow_distribution(
    logits: list[float], temperature: float, top_k: int, top_p: float
) -> dict[int, float]:
    """Probability of each token that can come next: everything sorted, added up one by one.

    Temperature first, then the k likeliest, then of those, made to sum to one, the fewest
    likeliest that reach p.
    """
    ranked = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    if top_k:
        ranked = ranked[:top_k]
    best = max(logits)
    masses = {token: math.exp((logits[token] - best) / temperature) for token in ranked}
    if 0 < top_p < 1:
        total = math.fsum(masses.values())
        kept, reached = [], 0.0
        for token in ranked:
            kept.append(token)
            reached += masses[token] / total
            if reached >= top_p:
                break
        masses = {token: masses[token] for token in kept}
    total = math.fsum(masses.values())
    return {token: mass / total for token, mass in masses.items()}


def as_dictionary(logits: np.ndarray, settings: SamplingSettings) -> dict[int, float]:
    tokens, probabilities = distribution(logits, settings)
    assert len(set(tokens.tolist())) == len(tokens)
    return dict(zip(tokens.tolist(), probabilities.tolist(), strict=True))


@pytest.fixture
def random() -> np.random.Generator:
    """A random generator; its seed is printed, and shown when the test fails."""
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {seed}")
    return np.random.default_rng(seed)


@pytest.mark.parametrize("n_vocab", [1, 2, 50, 700, 5000])
def test_the_distribution_is_that_of_the_reference(
    random: np.random.Generator, n_vocab: int
) -> None:
    for _ in range(60):
        # From nearly flat, where the nucleus is large, to one token that takes all.
        logits = (random.standard_normal(n_vocab) * random.choice([0.01, 1, 3, 20])).astype(
            np.float32
        )
        temperature = float(random.choice([0.1, 0.7, 1.0, 2.5]))
        top_k = int(random.choice([0, 1, 2, 40, n_vocab]))
        top_k = min(top_k, n_vocab)
        top_p = float(random.choice([0.0, 0.001, 0.5, 0.9, 0.999, 1.0]))
        settings = SamplingSettings(temperature, top_k, top_p)
        ours = as_dictionary(logits, settings)
        expected = slow_distribution(logits.tolist(), temperature, top_k, top_p)
        assert ours == pytest.approx(expected, rel=1e-9, abs=1e-300), settings


def test_the_reference_by_hand() -> None:
    logits = [math.log(weight) for weight in (1, 4, 2, 3)]
    assert slow_distribution(logits, 1, 0, 0) == pytest.approx({0: 0.1, 1: 0.4, 2: 0.2, 3: 0.3})
    assert slow_distribution(logits, 1, 2, 0) == pytest.approx({1: 4 / 7, 3: 3 / 7})
    assert slow_distribution(logits, 1, 0, 0.41) == pytest.approx({1: 4 / 7, 3: 3 / 7})
    assert slow_distribution(logits, 1, 0, 0.39) == {1: 1.0}
    # Among the two likeliest, token 1 alone has 4/7, more than a half.
    assert slow_distribution(logits, 1, 2, 0.5) == {1: 1.0}
    # Half the temperature squares the weights: 1, 16, 4, 9.
    squares = {0: 1 / 30, 1: 16 / 30, 2: 4 / 30, 3: 9 / 30}
    assert slow_distribution(logits, 0.5, 0, 0) == pytest.approx(squares)


@pytest.mark.parametrize(
    "settings",
    [
        SamplingSettings(),
        SamplingSettings(temperature=0.6),
        SamplingSettings(top_k=7),
        SamplingSettings(top_p=0.8),
        SamplingSettings(temperature=1.5, top_k=12, top_p=0.9),
    ],
    ids=str,
)
def test_tokens_are_drawn_as_often_as_they_are_probable(
    random: np.random.Generator, settings: SamplingSettings
) -> None:
    logits = (random.standard_normal(30) * 2).astype(np.float32)
    # No chance: uniform numbers from an even grid, of which an interval of length p holds between
    # p * size - 1 and p * size + 1.
    size = 20_000
    counts = Counter(choose(logits, settings, (place + 0.5) / size) for place in range(size))
    expected = slow_distribution(
        logits.tolist(), settings.temperature, settings.top_k, settings.top_p
    )
    assert set(counts) <= set(expected)
    for token, probability in expected.items():
        assert abs(counts[token] - probability * size) <= 1


def test_the_ends_of_the_uniform_numbers_draw_tokens_that_can_come(
    random: np.random.Generator,
) -> None:
    for n_vocab in (1, 2, 1000):
        logits = (random.standard_normal(n_vocab) * 3).astype(np.float32)
        for settings in (
            SamplingSettings(),
            SamplingSettings(top_k=1),
            SamplingSettings(1, 0, 0.5),
        ):
            possible = slow_distribution(logits.tolist(), 1, settings.top_k, settings.top_p)
            for uniform in (0.0, math.nextafter(1, 0)):
                assert choose(logits, settings, uniform) in possible


def test_an_impossible_token_is_not_drawn_by_the_smallest_uniform_number() -> None:
    for settings in (SamplingSettings(), SamplingSettings(top_k=3), SamplingSettings(1, 3, 0.9)):
        logits = np.array([-np.inf, -1e30, 2, 1], np.float32)
        assert choose(logits, settings, 0.0) == 2


def test_tokens_that_cannot_come_have_no_say_in_the_draw(random: np.random.Generator) -> None:
    """Otherwise rounding, which depends on batch size and processor, would change the text."""
    logits = random.permutation(np.linspace(-4, 4, 50257)).astype(np.float32)
    others = logits < np.sort(logits)[-300]
    for settings in (SamplingSettings(top_k=300), SamplingSettings(top_k=300, top_p=0.9)):
        for uniform in random.random(30):
            changed = logits.copy()
            changed[others] = random.permutation(logits[others])
            assert choose(changed, settings, uniform) == choose(logits, settings, uniform)


@pytest.mark.parametrize("top_k", [0, 1, 3, 5, 100])
@pytest.mark.parametrize("top_p", [0.0, 0.2, 0.5, 0.95])
def test_among_equal_scores_as_many_are_kept_as_asked_for(
    random: np.random.Generator, top_k: int, top_p: float
) -> None:
    for _ in range(20):
        logits = random.integers(0, 4, 100).astype(np.float32)
        ours = as_dictionary(logits, SamplingSettings(1, top_k, top_p))
        expected = slow_distribution(logits.tolist(), 1, top_k, top_p)
        # Which of the equals are kept is free, how many are not.
        assert sorted(ours.values()) == pytest.approx(sorted(expected.values()))
        left_out = [score for token, score in enumerate(logits) if token not in ours]
        assert all(logits[token] >= max(left_out, default=-1) for token in ours)
        assert as_dictionary(logits, SamplingSettings(1, top_k, top_p)) == ours


STAGES = (63, 64, 65, 511, 512, 513)


@pytest.mark.parametrize("size", [1, 63, 64, 65, 512, 600, 3000])
def test_the_nucleus_is_the_smallest_set_that_reaches_p(
    random: np.random.Generator, size: int
) -> None:
    for spread in (0, 0.1, 1, 8):
        probabilities = np.exp(random.standard_normal(size) * spread)
        probabilities /= probabilities.sum()
        # Among them what the likeliest 63, 64, ... reach together: there the search goes on.
        sums = np.cumsum(np.sort(probabilities)[::-1])[[n - 1 for n in STAGES if n <= size]]
        for p in (
            1e-9,
            0.1,
            0.5,
            0.97,
            1 - 1e-12,
            math.nextafter(1, 0),
            *(sums - 1e-9),
            *(sums + 1e-9),
        ):
            kept = nucleus(probabilities, p)
            assert len(set(kept.tolist())) == len(kept)
            chosen = probabilities[kept]
            # The rest are no likelier; without the least likely, p is not reached.
            rest = np.delete(probabilities, kept)
            assert not rest.size or rest.max() <= chosen.min()
            assert chosen.sum() >= p - 1e-12 or len(kept) == size
            assert math.fsum(sorted(chosen)[1:]) < p + 1e-12


def test_the_nucleus_by_hand() -> None:
    # Binary fractions, which add up without rounding.
    probabilities = np.array([0.125, 0.5, 0.0625, 0.25, 0.0625])
    for p, expected in [(0.5, {1}), (0.51, {1, 3}), (0.75, {1, 3}), (0.8, {0, 1, 3})]:
        assert set(nucleus(probabilities, p).tolist()) == expected
    assert len(nucleus(probabilities, 0.9)) == 4
    assert len(nucleus(probabilities, 0.99)) == 5


@pytest.mark.parametrize("top_p", [0, 1, 0.0, 1.0])
def test_top_p_of_zero_and_one_are_off(random: np.random.Generator, top_p: float) -> None:
    logits = random.standard_normal(200).astype(np.float32)
    ours = as_dictionary(logits, SamplingSettings(top_p=top_p))
    assert len(ours) == 200
    assert ours == pytest.approx(slow_distribution(logits.tolist(), 1, 0, 0))


def test_temperature_zero_takes_the_likeliest(random: np.random.Generator) -> None:
    logits = random.standard_normal(500).astype(np.float32)
    best = max(range(500), key=lambda token: logits[token])
    for settings in (SamplingSettings(0), SamplingSettings(0.0, 40), SamplingSettings(0, 3, 0.5)):
        for uniform in (0.0, 0.5, 0.999999):
            assert choose(logits, settings, uniform) == best


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-6, 1.0, 1e6, 1e300])
@pytest.mark.parametrize("size", [1e-38, 1.0, 1e38])
def test_extreme_scores_and_temperatures_draw_what_they_should(
    temperature: float, size: float
) -> None:
    logits = np.array([-3, 3, 2.5, -np.inf, 0], np.float32) * np.float32(size)
    for settings in (
        SamplingSettings(temperature),
        SamplingSettings(temperature, 2),
        SamplingSettings(temperature, 0, 0.9),
    ):
        ours = as_dictionary(logits, settings)
        assert sum(ours.values()) == pytest.approx(1)
        assert max(ours, key=ours.get) == 1 or temperature * 1e-9 > size
        assert ours.get(3, 0) == 0
        uniforms = np.linspace(0, 1, 50, endpoint=False)
        assert 3 not in {choose(logits, settings, uniform) for uniform in uniforms}
    if temperature <= size * 1e-3:
        assert choose(logits, SamplingSettings(temperature), 0.999) == 1


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("temperature", -0.1, "temperature should be a number of at least 0, not -0.1"),
        ("temperature", math.inf, "temperature .* not inf"),
        ("temperature", math.nan, "temperature .* not nan"),
        ("temperature", "hot", "temperature .* not 'hot'"),
        ("temperature", True, "temperature .* not True"),
        ("temperature", None, "temperature .* not None"),
        ("top_k", -1, "top_k should be a whole number of at least 0, not -1"),
        ("top_k", 2.5, "top_k .* not 2.5"),
        ("top_k", "40", "top_k .* not '40'"),
        ("top_k", True, "top_k .* not True"),
        ("top_p", -0.01, "top_p should be a number from 0 to 1, not -0.01"),
        ("top_p", 1.01, "top_p .* not 1.01"),
        ("top_p", math.nan, "top_p .* not nan"),
        ("top_p", (0, 9), r"top_p .* not \(0, 9\)"),
    ],
)
def test_impossible_settings_are_refused(name: str, value: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        SamplingSettings(**{name: value})


def test_top_k_beyond_the_vocabulary_is_refused() -> None:
    SamplingSettings(top_k=61).check_vocabulary(61)
    with pytest.raises(UserError, match="top_k is 62, but the vocabulary has only 61 tokens"):
        SamplingSettings(top_k=62).check_vocabulary(61)
