"""The next token comes from the right distribution: slow references and golden vectors."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gpt2.errors import UserError
from gpt2.generation.sampling import (
    SamplingSettings,
    distribution,
    largest_indices,
    log_probability,
    nucleus,
    process_logits,
    sample_token,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "generation.npz"


def slow_processed(
    logits: list[float], settings: SamplingSettings, prompt: list[int], text: list[int]
) -> list[float]:
    """Return logits after biases, penalties and bans: token by token, in the stated order."""
    tokens = prompt + text
    scores = list(logits)
    for token in range(len(scores)):
        scores[token] += settings.logit_bias.get(token, 0)
        if token in tokens:
            penalty = settings.repetition_penalty
            scores[token] *= penalty if scores[token] < 0 else 1 / penalty
        if token in text:
            scores[token] -= settings.presence_penalty
            scores[token] -= settings.frequency_penalty * text.count(token)
        n = settings.no_repeat_ngram
        then = [*tokens, token]  # the text if this token came
        before = [tokens[start : start + n] for start in range(len(tokens) - n + 1)]
        if n and then[-n:] in before:
            scores[token] = -math.inf
        for words in settings.banned:
            if then[-len(words) :] == list(words):
                scores[token] = -math.inf
    return scores


def slow_distribution(
    logits: list[float],
    temperature: float,
    top_k: int = 0,
    top_p: float = 0,
    min_p: float = 0,
    typical_p: float = 0,
) -> dict[int, float]:
    """Return the probability of each possible next token: all sorted, summed one by one.

    Temperature first, then top-k, top-p, min-p and typical sampling; probabilities are normalized
    after each.
    """
    ranked = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    if top_k:
        ranked = ranked[:top_k]
    best = max(logits)
    masses = normalized({token: math.exp((logits[token] - best) / temperature) for token in ranked})
    if 0 < top_p < 1:
        masses = first_to_reach(top_p, ranked, masses)
    if min_p:
        least = min_p * max(masses.values())
        masses = normalized({token: mass for token, mass in masses.items() if mass >= least})
    if 0 < typical_p < 1:
        surprise = {token: -math.log(mass) for token, mass in masses.items() if mass}
        entropy = math.fsum(masses[token] * surprise[token] for token in surprise)
        by_typicality = sorted(
            masses, key=lambda token: (abs(surprise.get(token, math.inf) - entropy), token)
        )
        masses = first_to_reach(typical_p, by_typicality, masses)
    return masses


def normalized(masses: dict[int, float]) -> dict[int, float]:
    total = math.fsum(masses.values())
    return {token: mass / total for token, mass in masses.items()}


def first_to_reach(p: float, ranked: list[int], masses: dict[int, float]) -> dict[int, float]:
    kept, reached = {}, 0.0
    for token in ranked:
        kept[token] = masses[token]
        reached += masses[token]
        if reached >= p:
            break
    return normalized(kept)


def as_dictionary(logits: np.ndarray, settings: SamplingSettings) -> dict[int, float]:
    tokens, probabilities = distribution(logits, settings)
    assert (np.diff(tokens) > 0).all()
    return dict(zip(tokens.tolist(), probabilities.tolist(), strict=True))


def draws(logits: np.ndarray, settings: SamplingSettings, size: int, seed: int) -> list[int]:
    random = np.random.default_rng(seed)
    return [sample_token(logits, settings, random) for _ in range(size)]


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
        settings = SamplingSettings(
            temperature=float(random.choice([0.1, 0.7, 1.0, 2.5])),
            top_k=min(int(random.choice([0, 1, 2, 40, n_vocab])), n_vocab),
            top_p=float(random.choice([0.0, 0.001, 0.5, 0.9, 0.999, 1.0])),
            min_p=float(random.choice([0.0, 0.0, 1e-6, 0.1, 1.0])),
            typical_p=float(random.choice([0.0, 0.0, 0.001, 0.4, 0.95, 1.0])),
        )
        ours = as_dictionary(logits, settings)
        expected = slow_distribution(
            logits.tolist(),
            settings.temperature,
            settings.top_k,
            settings.top_p,
            settings.min_p,
            settings.typical_p,
        )
        assert ours == pytest.approx(expected, rel=1e-9, abs=1e-300), settings


@pytest.mark.parametrize("together", [0, 1, 2, 6])
def test_processed_logits_are_those_of_the_reference(
    random: np.random.Generator, together: int
) -> None:
    """Each rule alone and all of them together, over texts that repeat themselves."""
    for _ in range(100):
        prompt = random.integers(0, 6, random.integers(1, 9)).tolist()
        text = random.integers(0, 6, random.integers(0, 9)).tolist()
        tail = (prompt + text)[-3:]
        rules = {
            "repetition_penalty": float(random.choice([0.5, 1.2, 3])),
            "presence_penalty": float(random.choice([-1, 0.5, 2])),
            "frequency_penalty": float(random.choice([-0.5, 0.25, 1])),
            "no_repeat_ngram": int(random.choice([1, 2, 3, 5])),
            "banned": ((7,), (*tail, 8), (*tail[1:], 9), (5, 5, 5, 5, 10), (11, 12)),
            "logit_bias": {0: 5.0, 3: -7.5, 13: 0.25},
        }
        chosen = random.permutation(list(rules))[:together].tolist()
        settings = SamplingSettings(**{rule: rules[rule] for rule in chosen})
        logits = (random.standard_normal(20) * 3).astype(np.float32)
        before = logits.copy()
        ours = process_logits(logits, settings, prompt, text)
        assert (logits == before).all()  # it is the engine's
        expected = slow_processed(logits.tolist(), settings, prompt, text)
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5, err_msg=str(settings))


def test_processed_logits_by_hand() -> None:
    logits = np.array([2, -2, 4, 0, 1], np.float32)

    def after(prompt: list[int], text: list[int], **rules) -> list[float]:
        return process_logits(logits, SamplingSettings(**rules), prompt, text).tolist()

    assert after([0, 1], [2], repetition_penalty=2) == [1, -4, 2, 0, 1]
    # Presence and frequency penalties ignore the prompt.
    assert after([0, 1], [2], presence_penalty=0.5) == [2, -2, 3.5, 0, 1]
    assert after([0, 1], [2, 2, 4], frequency_penalty=0.5) == [2, -2, 3, 0, 0.5]
    assert after([0, 1], [2], presence_penalty=-1, frequency_penalty=0.5) == [2, -2, 4.5, 0, 1]
    ban = -math.inf
    assert after([3, 0], [1, 3], no_repeat_ngram=2) == [ban, -2, 4, 0, 1]
    assert after([3], [], no_repeat_ngram=2) == logits.tolist()
    assert after([3, 3], [3], no_repeat_ngram=3) == [2, -2, 4, ban, 1]
    assert after([3], [1], banned=((4,), (1, 2), (3, 1, 0), (0, 3), (9, 3, 1, 3))) == [
        *(ban, -2, ban),
        *(0, ban),
    ]
    # The bias comes before the penalty: (2 + 2) / 2.
    assert after([0], [], logit_bias={0: 2.0, 1: -1}, repetition_penalty=2) == [2, -3, 4, 0, 1]


@pytest.fixture(scope="module")
def golden_rules() -> list[tuple[dict, SamplingSettings, dict[str, np.ndarray]]]:
    """Of each golden case: what it is, our settings for it, and the arrays."""
    with np.load(GOLDEN, allow_pickle=False) as archive:
        cases = json.loads(archive["cases"].item())
        arrays = {name: archive[name] for name in ("logits", "adjusted", "scores")}
    known = {
        "no_repeat_ngram_size": lambda value: {"no_repeat_ngram": value},
        "bad_words_ids": lambda value: {"banned": tuple(map(tuple, value))},
        "sequence_bias": lambda value: {"logit_bias": {token: by for (token,), by in value}},
    }
    golden = []
    for number, case in enumerate(cases):
        options = {}
        for name, value in case["rule"].items():
            options |= known[name](value) if name in known else {name: value}
        biases = options.pop("logit_bias", {})
        # A bias of minus infinity is what we call a ban.
        endless = tuple((token,) for token, by in biases.items() if math.isinf(by))
        settings = SamplingSettings(
            banned=options.pop("banned", ()) + endless,
            logit_bias={token: by for token, by in biases.items() if math.isfinite(by)},
            **options,
        )
        rows = {name: array[number] for name, array in arrays.items()}
        golden.append((case, settings, rows))
    return golden


def test_processed_logits_are_those_of_transformers(golden_rules: list) -> None:
    changed = 0
    for case, settings, arrays in golden_rules:
        for split in (0, 7, len(case["context"])):  # what is prompt, what is text, is all the same
            prompt, text = case["context"][:split], case["context"][split:]
            ours = process_logits(arrays["logits"], settings, prompt, text)
            np.testing.assert_allclose(ours, arrays["adjusted"], rtol=1e-6, err_msg=str(case))
        changed += not np.array_equal(arrays["adjusted"], arrays["logits"])
    assert changed >= 20


def test_distributions_are_those_of_transformers(golden_rules: list) -> None:
    narrowed = 0
    for case, settings, arrays in golden_rules:
        adjusted = process_logits(arrays["logits"], settings, case["context"], [])
        tokens, probabilities = distribution(adjusted, settings)
        ours = np.zeros(len(adjusted))
        ours[tokens] = probabilities
        scores = arrays["scores"].astype(np.float64)
        expected = np.exp(scores - scores.max())
        expected /= expected.sum()
        np.testing.assert_array_equal(ours > 0, expected > 0, err_msg=str(case))
        np.testing.assert_allclose(ours, expected, rtol=1e-5, err_msg=str(case))
        narrowed += np.isneginf(arrays["scores"]).sum() > np.isneginf(arrays["adjusted"]).sum()
    assert narrowed >= 40


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
    # Three quarters of 0.4 are 0.3.
    assert slow_distribution(logits, 1, min_p=0.74) == pytest.approx({1: 4 / 7, 3: 3 / 7})
    assert slow_distribution(logits, 1, min_p=0.76) == {1: 1.0}
    # The entropy is 1.28 nats; surprises are 2.30, 0.92, 1.61 and 1.20 nats, so 3 is the most
    # typical, then 2, then 1.
    assert slow_distribution(logits, 1, typical_p=0.29) == {3: 1.0}
    assert slow_distribution(logits, 1, typical_p=0.49) == pytest.approx({3: 3 / 5, 2: 2 / 5})
    assert set(slow_distribution(logits, 1, typical_p=0.51)) == {1, 2, 3}


@pytest.mark.parametrize(
    "settings",
    [
        SamplingSettings(),
        SamplingSettings(temperature=0.6),
        SamplingSettings(top_k=7),
        SamplingSettings(top_p=0.8),
        SamplingSettings(temperature=1.5, top_k=12, top_p=0.9),
        SamplingSettings(min_p=0.1),
        SamplingSettings(typical_p=0.7),
    ],
    ids=str,
)
def test_tokens_are_drawn_as_often_as_they_are_probable(settings: SamplingSettings) -> None:
    logits = (np.random.default_rng(5).standard_normal(30) * 2).astype(np.float32)
    size = 20_000
    counts = Counter(draws(logits, settings, size, seed=1))
    expected = slow_distribution(
        logits.tolist(),
        settings.temperature,
        settings.top_k,
        settings.top_p,
        settings.min_p,
        settings.typical_p,
    )
    assert set(counts) <= set(expected)
    for token, probability in expected.items():
        deviation = math.sqrt(size * probability * (1 - probability))
        assert abs(counts[token] - probability * size) <= 4 * deviation + 1, token


def test_an_impossible_token_is_never_drawn(random: np.random.Generator) -> None:
    logits = np.array([-np.inf, -1e30, 2, 1], np.float32)
    for settings in (
        SamplingSettings(),
        SamplingSettings(top_k=3),
        SamplingSettings(1, 4, 0.9),
        SamplingSettings(typical_p=0.9),
    ):
        with np.errstate(invalid="raise", divide="raise"):  # nothing is made of minus infinity
            assert {sample_token(logits, settings, random) for _ in range(200)} <= {2, 3}


def test_logits_of_dropped_tokens_do_not_affect_the_sample(random: np.random.Generator) -> None:
    """Otherwise rounding, which depends on batch size and CPU, would change the text."""
    logits = random.permutation(np.linspace(-4, 4, 50257)).astype(np.float32)
    others = logits < np.sort(logits)[-300]
    for settings in (SamplingSettings(top_k=300), SamplingSettings(top_k=300, top_p=0.9)):
        changed = logits.copy()
        changed[others] = random.permutation(logits[others])
        assert draws(changed, settings, 30, seed=2) == draws(logits, settings, 30, seed=2)


def test_a_rounding_error_in_the_logits_changes_hardly_any_sample(
    random: np.random.Generator,
) -> None:
    logits = (random.standard_normal(50257) * 3).astype(np.float32)
    noisy = logits * (1 + random.standard_normal(50257) * 1e-7).astype(np.float32)
    before, after = (draws(scores, SamplingSettings(), 100, seed=3) for scores in (logits, noisy))
    assert sum(a != b for a, b in zip(before, after, strict=True)) <= 1


def test_the_largest_indices_are_those_a_sort_puts_last(random: np.random.Generator) -> None:
    for _ in range(500):
        size = int(random.integers(1, 3000))
        count = int(random.integers(1, size + 1))
        scores = random.standard_normal(size).astype(np.float32)
        if random.random() < 0.3:
            scores = np.round(scores)  # many equals
        if random.random() < 0.3:
            scores[random.random(size) < 0.9] = -np.inf
        found = largest_indices(scores, count)
        assert (np.diff(found) > 0).all()
        assert sorted(scores[found]) == sorted(scores)[-count:]


@pytest.mark.parametrize("top_k", [0, 1, 3, 5, 100])
@pytest.mark.parametrize("top_p", [0.0, 0.2, 0.5, 0.95])
def test_with_equal_logits_as_many_are_kept_as_asked_for(
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


def test_temperature_zero_is_greedy(random: np.random.Generator) -> None:
    logits = random.standard_normal(500).astype(np.float32)
    best = max(range(500), key=lambda token: logits[token])
    for settings in (SamplingSettings(0), SamplingSettings(0.0, 40), SamplingSettings(0, 3, 0.5)):
        assert {sample_token(logits, settings, random) for _ in range(20)} == {best}


def test_the_log_probability_is_that_of_the_softmax(random: np.random.Generator) -> None:
    for spread in (0.1, 1, 30):
        logits = (random.standard_normal(100) * spread).astype(np.float32)
        masses = normalized({token: math.exp(score) for token, score in enumerate(logits)})
        for token in (0, 50, int(logits.argmax())):
            assert log_probability(logits, token) == pytest.approx(
                math.log(masses[token]), rel=1e-4, abs=1e-5
            )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-6, 1.0, 1e6, 1e38])
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
        assert 3 not in draws(logits, settings, 50, seed=4)
    if temperature <= size * 1e-3:
        assert set(draws(logits, SamplingSettings(temperature), 50, seed=4)) == {1}


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("temperature", -0.1, "temperature .* number at least 0, not -0.1"),
        ("temperature", math.inf, "temperature .* not inf"),
        ("temperature", math.nan, "temperature .* not nan"),
        ("temperature", "hot", "temperature .* not 'hot'"),
        ("temperature", True, "temperature .* not True"),
        ("temperature", None, "temperature .* not None"),
        ("top_k", -1, "top_k .* whole number at least 0, not -1"),
        ("top_k", 2.5, "top_k .* not 2.5"),
        ("top_k", "40", "top_k .* not '40'"),
        ("top_k", True, "top_k .* not True"),
        ("top_p", -0.01, "top_p .* from 0 to 1, not -0.01"),
        ("top_p", 1.01, "top_p .* not 1.01"),
        ("top_p", math.nan, "top_p .* not nan"),
        ("top_p", (0, 9), r"top_p .* not \(0, 9\)"),
        ("min_p", 1.5, "min_p .* from 0 to 1, not 1.5"),
        ("typical_p", -0.5, "typical_p .* from 0 to 1, not -0.5"),
        ("repetition_penalty", 0, "repetition_penalty .* above 0, not 0"),
        ("repetition_penalty", -1, "repetition_penalty .* not -1"),
        ("presence_penalty", math.inf, "presence_penalty .* not inf"),
        ("frequency_penalty", "much", "frequency_penalty .* not 'much'"),
        ("no_repeat_ngram", -2, "no_repeat_ngram .* not -2"),
        ("no_repeat_ngram", 1.0, "no_repeat_ngram .* not 1.0"),
        ("logit_bias", {3: math.nan}, r"logit_bias .* not \{3: nan\}"),
        ("logit_bias", {"a": 1.0}, "logit_bias .* not {'a'"),
        ("logit_bias", {True: 1.0}, "logit_bias .* not {True"),
        ("logit_bias", None, "logit_bias .* not None"),
        ("banned", None, "banned .* not None"),
        ("banned", ((1.5,),), "banned .* not"),
        ("banned", (("a",),), "banned .* not"),
        ("banned", ((),), "banned"),
    ],
)
def test_impossible_settings_are_refused(name: str, value: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        SamplingSettings(**{name: value})


def test_top_k_beyond_the_vocabulary_is_refused() -> None:
    SamplingSettings(top_k=61).check_vocabulary(61)
    with pytest.raises(UserError, match="top_k is 62, but the vocabulary has only 61 tokens"):
        SamplingSettings(top_k=62).check_vocabulary(61)


@pytest.mark.parametrize(
    "settings",
    [
        {"banned": ((61,),)},
        {"banned": ((3, -1),)},
        {"logit_bias": {61: 1.0}},
    ],
    ids=str,
)
def test_token_ids_beyond_the_vocabulary_are_refused(settings: dict) -> None:
    SamplingSettings(banned=((60, 0),), logit_bias={60: 1.0}).check_vocabulary(61)
    with pytest.raises(UserError, match=r"not a token id .*0 to 60"):
        SamplingSettings(**settings).check_vocabulary(61)


def test_suppressing_every_token_is_an_error() -> None:
    logits = np.zeros(4, np.float32)
    with pytest.raises(UserError, match="All tokens are suppressed"):
        process_logits(logits, SamplingSettings(banned=((0,), (1,), (2,), (3,))), [0], [])
    with pytest.raises(UserError, match="All tokens are suppressed"):
        process_logits(logits, SamplingSettings(no_repeat_ngram=1), [0, 1], [2, 3])
    with pytest.raises(UserError, match="All tokens are suppressed"):
        process_logits(logits, SamplingSettings(no_repeat_ngram=1), [0, 1], [2], suppressed=[3])
    process_logits(logits, SamplingSettings(no_repeat_ngram=1), [0, 1], [2])


@pytest.mark.parametrize(
    ("top_k", "top_p", "kept"), [(40, 0.0, 40), (40, 1.0, 40), (40, 0.9, 0), (0, 0.9, 0)]
)
def test_in_training_top_p_overrides_top_k_when_it_is_between_0_and_1(
    top_k: int, top_p: float, kept: int
) -> None:
    settings = SamplingSettings.of_2021(top_k, top_p)
    assert (settings.top_k, settings.top_p) == (kept, top_p)
    with pytest.raises(UserError, match="top_p"):
        SamplingSettings.of_2021(40, "0.9")
