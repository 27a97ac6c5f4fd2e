"""8-bit keys and values change logits a little, by rules that depend on a token alone."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from gpt2.checkpoint.folder import ModelFolder
from gpt2.errors import UserError
from gpt2.generation import attention, litert_conversion
from gpt2.generation.int8_cache import Int8Cache
from gpt2.generation.litert_engine import LiteRTEngine
from gpt2.generation.loading import open_model
from tests.generation.model_folders import write_small_model
from tests.golden_model import Golden

compiled_attention = pytest.importorskip("gpt2.generation.compiled_attention", exc_type=ImportError)


def cache_of(seed: int, slots: int, heads: int, positions: int, size: int) -> np.ndarray:
    """Random keys and values of two layers, float32 [2, L, B, H, N, D]."""
    shape = (2, 2, slots, heads, positions, size)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def queries(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def slow_attention(query: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Softmax attention in float64 of a query [D] over the rounded keys and values [S, D]."""

    def rounded(rows: np.ndarray, largest: int) -> np.ndarray:
        scale = np.abs(rows.astype(np.float64)).max(-1, keepdims=True) / largest
        return np.rint(rows / scale) * scale

    logits = rounded(keys, 127) @ rounded(query, 8191) / np.sqrt(len(query))
    weights = np.exp(logits - logits.max())
    return (weights / weights.sum()) @ rounded(values, 127)


@pytest.mark.parametrize("size", [1, 8, 48, 64, 128])
def test_attention_is_the_textbook_formula_over_rounded_keys_and_values(size: int) -> None:
    cache = cache_of(size, slots=3, heads=2, positions=70, size=size)
    codes = Int8Cache(cache)
    slots, lengths = np.array([2, 0, 1, 0]), np.array([70, 1, 9, 16])
    query = queries(size, 4, 2, size)
    for layer in (1, 0):
        found = codes.decode_attention(layer, query, slots, lengths).reshape(4, 2, size)
        for token, (slot, end) in enumerate(zip(slots, lengths, strict=True)):
            for head in range(2):
                keys, values = cache[:, layer, slot, head, :end]
                expected = slow_attention(query[token, head], keys, values)
                np.testing.assert_allclose(found[token, head], expected, rtol=2e-5, atol=2e-5)


def test_it_is_close_to_the_attention_over_float32() -> None:
    cache = cache_of(3, slots=1, heads=12, positions=1024, size=64)
    query, slots, lengths = queries(4, 1, 12, 64), np.array([0]), np.array([1024])
    exact = attention.decode_attention(query, *cache[:, 0], slots, lengths)
    found = Int8Cache(cache).decode_attention(0, query, slots, lengths)
    assert np.sqrt(np.mean((found - exact) ** 2)) < 0.02 * np.sqrt(np.mean(exact**2))


def test_large_numbers_zeros_and_numbers_that_are_not_finite() -> None:
    cache = cache_of(5, slots=5, heads=1, positions=20, size=8)
    query = queries(6, 5, 1, 8)
    query[0] *= 1e4  # logits far apart
    cache[:, 0, 1] = query[1] = 0
    cache[0, 0, 2, 0, 3, 4] = np.nan
    cache[1, 0, 3, 0, 19, 0] = np.inf
    query[4, 0, 2] = np.nan
    found = Int8Cache(cache).decode_attention(0, query, np.arange(5), np.full(5, 20))
    logits = cache[0, 0, 0, 0] @ query[0, 0]
    np.testing.assert_allclose(found[0], cache[1, 0, 0, 0, logits.argmax()], atol=0.02)
    assert not found[1].any()
    assert not np.isfinite(found[2:]).any()


def engine_of(golden: Golden, folder: Path, int8: bool = True) -> LiteRTEngine:
    if not (folder / litert_conversion.FIRST).exists():
        litert_conversion.convert(golden.tensors("weights"), golden.hparams, folder, "int8")
    return LiteRTEngine(folder, golden.hparams, threads=2, int8_cache=int8)


def test_a_token_has_the_same_bits_alone_in_a_batch_and_in_one_pass(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(golden, tmp_path)
    texts = [text.tolist() for text in golden.tokens[:3, 0]]
    first = (2, 5, 9)  # length of each prompt
    count = golden.hparams.n_ctx - max(first)

    def following(number: int, at: int) -> int:
        return texts[number][first[number] + at]

    alone = []
    for number, text in enumerate(texts):
        engine.reset(1)
        engine.prefill(0, text[: first[number]])
        alone.append([engine.decode(np.array([following(number, at)]))[0] for at in range(count)])
    engine.reset(3)
    for number, text in enumerate(texts):
        engine.prefill(number, text[: first[number]])
    for at in range(count):
        tokens = np.array([following(number, at) for number in range(3)])
        for number, logits in enumerate(engine.decode(tokens)):
            np.testing.assert_array_equal(logits, alone[number][at])
    for number, text in enumerate(texts):
        for size in (1, 2, 3, count):
            engine.lengths[number] = first[number]
            for at in range(0, count, size):
                end = min(at + size, count)
                tokens = text[first[number] + at : first[number] + end]
                logits = engine.extend(number, tokens)
                np.testing.assert_array_equal(logits, alone[number][at:end])


def test_codes_count_as_memory_of_a_slot(golden: Golden, tmp_path: Path) -> None:
    hparams = golden.hparams
    rows = 2 * hparams.n_layer * hparams.n_ctx
    engine = engine_of(golden, tmp_path)
    engine.reset(2)
    codes = rows * (hparams.n_embd + 4 * hparams.n_head)
    assert engine.slot_bytes == rows * hparams.n_embd * 4 + codes


def test_decode_steps_differ_a_little_from_float32_and_prefill_does_not(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = [engine_of(golden, tmp_path, int8) for int8 in (True, False)]
    text = golden.tokens[0, 0].tolist()
    for engine in engines:
        engine.prefill(0, text[:2])
    for token in text[2:10]:
        found, exact = (engine.decode(np.array([token])) for engine in engines)
        assert (found != exact).any()
        np.testing.assert_allclose(found, exact, atol=0.05 * np.abs(exact).max())
    found, exact = (engine.score(0, text) for engine in engines)
    np.testing.assert_array_equal(found, exact)


@pytest.mark.parametrize("seed", range(3))
def test_codes_are_never_older_than_the_keys_and_values(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Random calls give the logits of an engine that has no codes before any of them."""
    print(f"seed {seed}")
    monkeypatch.setattr(attention, "ROWS", 4)
    attention._mask.cache_clear()
    random = np.random.default_rng(seed)
    kept, fresh = engine_of(golden, tmp_path), engine_of(golden, tmp_path)
    n_ctx, n_vocab = golden.hparams.n_ctx, golden.hparams.n_vocab
    text = random.integers(0, n_vocab, n_ctx).tolist()

    def prompt() -> list[int]:
        """One that begins like others."""
        common, more = random.integers(1, 9), random.integers(0, 4)
        return text[:common] + random.integers(0, n_vocab, more).tolist()

    def both(call: str, *arguments: object) -> object:
        fresh._int8_cache = Int8Cache(fresh._cache)
        found, expected = (getattr(engine, call)(*arguments) for engine in (kept, fresh))
        np.testing.assert_array_equal(found, expected)
        return found

    both("reset", 2)
    for _ in range(150):
        slots = len(kept.lengths)
        slot = int(random.integers(slots))
        length = int(kept.lengths[slot])
        match random.choice(["prefill", "decode", "decode", "extend", "lower", "reorder", "reset"]):
            case "prefill":
                tokens = prompt()
                start = both("reuse", slot, tokens)
                both("prefill", slot, tokens[start:], start)
            case "decode":
                some = np.flatnonzero((kept.lengths > 0) & (kept.lengths < n_ctx)).tolist()
                if some:
                    both("decode", random.integers(0, n_vocab, len(some)), some)
            case "extend":
                if 0 < length < n_ctx:
                    count = random.integers(1, min(4, n_ctx - length) + 1)
                    both("extend", slot, random.integers(0, n_vocab, count).tolist())
            case "lower":
                kept.lengths[slot] = fresh.lengths[slot] = random.integers(0, length + 1)
            case "reorder":
                both("reorder", random.integers(0, slots, random.integers(1, 4)).tolist())
            case "reset":
                both("reset", int(random.integers(1, 4)))
    attention._mask.cache_clear()


def test_a_numba_that_cannot_be_imported_is_named_before_the_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)  # as an older one for a newer NumPy
    monkeypatch.setenv("GPT2_CACHE_DIR", str(tmp_path / "cache"))
    folder = ModelFolder(write_small_model(tmp_path / "small"))
    with pytest.raises(UserError, match=r"kv_cache int8 needs Numba.*pip install numba"):
        open_model(folder, kv_cache="int8")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_a_model_opens_with_an_int8_cache_and_generates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantize: str
) -> None:
    monkeypatch.setenv("GPT2_CACHE_DIR", str(tmp_path / "cache"))
    folder = ModelFolder(write_small_model(tmp_path / "small"))
    model = open_model(folder, quantize=quantize, kv_cache="int8")
    assert isinstance(model.engine, LiteRTEngine)
    texts = [
        [each.text for each in model.generate(["the cat", "hat"], length=20, seed=1, batch_size=n)]
        for n in (1, 2)
    ]
    assert texts[0] == texts[1]
    with pytest.raises(UserError, match=r"kv_cache int8 .* engine numpy"):
        open_model(folder, "numpy", kv_cache="int8")


def _first_query(query, layer, slots, lengths, cache, codes, scales, filled):  # type: ignore[no-untyped-def]
    """Take the place of the function that takes seconds to compile."""
    return query


def test_a_damaged_copy_of_the_compiled_function_is_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numba = pytest.importorskip("numba")
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiled_attention, "_attend", _first_query)
    cache = cache_of(9, slots=1, heads=1, positions=4, size=4)
    codes = Int8Cache(cache)
    query = queries(9, 1, 1, 4)

    def attended() -> np.ndarray:
        function = compiled_attention.attend.__wrapped__()
        one = np.array([1])
        return function(query, 0, one, one, cache, codes._codes, codes._scales, codes._filled)

    np.testing.assert_array_equal(attended(), query)
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert kept
    for path in kept:
        path.write_bytes(path.read_bytes()[:20])
    np.testing.assert_array_equal(attended(), query)
