"""Engines say what the model says, each row on its own, and keep no more than they need."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from gpt2 import model
from gpt2.generation import attention, litert_conversion
from gpt2.generation.engine import Engine
from gpt2.generation.litert_engine import LiteRTEngine
from gpt2.generation.numpy_engine import NumPyEngine
from gpt2.generation.tensorflow_engine import TensorFlowEngine
from gpt2.hparams import HParams
from tests.generation.conftest import resident_memory, scores_from_scratch
from tests.golden_model import Golden

N_CTX = 16  # of the golden model


def check(golden: Golden, scores: np.ndarray, texts: list[list[int]]) -> None:
    """Hold the scores of a batch against the model's own for each row alone."""
    assert scores.dtype == np.float32
    assert scores.shape == (len(texts), golden.hparams.n_vocab)
    for row, text in zip(scores, texts, strict=True):
        expected = scores_from_scratch(golden, text)
        np.testing.assert_allclose(row, expected, atol=1e-4)


def primed(golden: Golden, engine: Engine, texts: list[list[int]]) -> None:
    engine.reset(len(texts))
    scores = [engine.prefill(row, text) for row, text in enumerate(texts)]
    check(golden, np.stack(scores), texts)
    assert engine.lengths.tolist() == [len(text) for text in texts]


def stepped(
    golden: Golden, engine: Engine, texts: list[list[int]], tokens: list[int]
) -> list[list[int]]:
    scores = engine.decode(np.array(tokens))
    texts = [[*text, token] for text, token in zip(texts, tokens, strict=True)]
    check(golden, scores, texts)
    assert engine.lengths.tolist() == [len(text) for text in texts]
    return texts


@pytest.mark.parametrize("prompt", [16, 1, 5, 15])
def test_scores_are_those_of_the_independent_implementation_however_tokens_are_fed(
    golden: Golden, engine: Engine, prompt: int
) -> None:
    """A prompt in one go, the rest token by token until the window is full."""
    tokens, expected = golden.tokens[0], golden.arrays["logits"]  # [2, 16], [2, 16, 61]
    engine.reset(2)
    for row in (1, 0):
        scores = engine.prefill(row, tokens[row, :prompt].tolist())
        np.testing.assert_allclose(scores, expected[row, prompt - 1], atol=1e-4)
    for place in range(prompt, N_CTX):
        scores = engine.decode(tokens[:, place])
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, expected[:, place], atol=1e-4)
    assert engine.lengths.tolist() == [N_CTX, N_CTX]


@pytest.mark.parametrize("chunk", [1, 2, 5, 15, 16])
def test_where_a_prompt_is_cut_into_chunks_changes_nothing(
    golden: Golden, converted: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(LiteRTEngine, "CHUNK", chunk)
    engine = LiteRTEngine(converted, golden.hparams)
    for size in range(1, N_CTX):
        texts = [golden.tokens[0, 0, :size].tolist(), golden.tokens[1, 0, : N_CTX - size].tolist()]
        primed(golden, engine, texts)
        stepped(golden, engine, texts, [3, 4])
    primed(golden, engine, [golden.tokens[0, 0].tolist()])


def test_rows_of_different_lengths_go_on_together(golden: Golden, engine: Engine) -> None:
    texts = [golden.tokens[number, 0, :size].tolist() for number, size in enumerate((1, 11, 5, 9))]
    primed(golden, engine, texts)
    for place in range(5):
        texts = stepped(golden, engine, texts, golden.tokens[9, :2, place : place + 2].ravel())
    assert engine.lengths.max() == N_CTX


def test_one_row_begins_anew_while_the_others_go_on(golden: Golden, engine: Engine) -> None:
    texts = [golden.tokens[number, 0, :size].tolist() for number, size in enumerate((10, 4, 7))]
    primed(golden, engine, texts)
    texts = stepped(golden, engine, texts, [1, 2, 3])
    # First a shorter text than the row held, later a longer one, the whole window.
    for row, size in ((0, 3), (2, 1), (0, N_CTX)):
        texts[row] = golden.tokens[8, row % 2, :size].tolist()
        check(golden, engine.prefill(row, texts[row])[None], [texts[row]])
        if size < N_CTX:
            texts = stepped(golden, engine, texts, [4 + row, 5, 6])
    texts[0] = [60]
    engine.prefill(0, [60])
    stepped(golden, engine, texts, [7, 8, 9])


@pytest.mark.parametrize(
    "sources", [[0, 1, 2], [2, 0, 1], [1], [2, 2], [0, 0, 0, 1, 2, 1], [1, 2], [2, 1, 0]], ids=str
)
def test_reordered_rows_remember_what_their_sources_did(
    golden: Golden, engine: Engine, sources: list[int]
) -> None:
    texts = [golden.tokens[number, 0, :size].tolist() for number, size in enumerate((2, 9, 5))]
    primed(golden, engine, texts)
    texts = stepped(golden, engine, texts, [11, 12, 13])
    engine.reorder(sources)
    texts = [texts[source] for source in sources]
    assert engine.lengths.tolist() == [len(text) for text in texts]
    # Doubled rows part ways here, so neither may write into the other's memory.
    tokens = list(range(20, 20 + len(texts)))
    texts = stepped(golden, engine, texts, tokens)
    texts = stepped(golden, engine, texts, tokens[::-1])
    # And again, with other numbers of rows.
    engine.reorder([0, 0])
    texts = stepped(golden, engine, [texts[0], texts[0]], [30, 31])
    engine.reorder([1])
    stepped(golden, engine, [texts[1]], [32])


def test_the_memory_of_a_slot_is_that_of_keys_and_values(golden: Golden, engine: Engine) -> None:
    hparams = golden.hparams
    numbers = 2 * hparams.n_layer * hparams.n_ctx * hparams.n_embd
    for slots in (1, 3):
        engine.reset(slots)
        assert engine.slot_bytes == 4 * numbers


def test_a_batch_knows_nothing_of_the_batch_before(golden: Golden, engine: Engine) -> None:
    for number, sizes in enumerate(([9, 9], [16, 3, 7, 1], [2, 5], [1, 1], [16], [4, 8])):
        texts = [golden.tokens[number, row % 2, :size].tolist() for row, size in enumerate(sizes)]
        primed(golden, engine, texts)
        if max(sizes) < N_CTX:
            stepped(golden, engine, texts, [row for row, _ in enumerate(sizes)])


def test_rows_of_a_batch_know_nothing_of_each_other(golden: Golden, engine: Engine) -> None:
    first, other = golden.tokens[0, 0, :8].tolist(), golden.tokens[3, 1, :8].tolist()
    steps = []
    for second in (other, first, other[:1]):
        engine.reset(2)
        engine.prefill(0, first)
        engine.prefill(1, second)
        steps.append(engine.decode(np.array([5, len(second)]))[0])
    np.testing.assert_allclose(steps[1], steps[0], atol=1e-5)
    np.testing.assert_allclose(steps[2], steps[0], atol=1e-5)


def test_a_head_of_several_parts_scores_every_token_once(golden: Golden, converted: Path) -> None:
    assert litert_conversion.head_parts(golden.hparams) == 2  # 45 of the 61 tokens, and 16
    engine = LiteRTEngine(converted, golden.hparams)
    expected = golden.arrays["logits"][0, 2]
    np.testing.assert_allclose(engine.prefill(0, golden.tokens[0, 0, :3]), expected, atol=1e-4)


@pytest.mark.slow
def test_int8_weights_change_the_scores_a_little(golden: Golden, tmp_path: Path) -> None:
    litert_conversion.convert(golden.tensors("weights"), golden.hparams, tmp_path, "int8")
    engine = LiteRTEngine(tmp_path, golden.hparams)
    expected = golden.arrays["logits"][0]
    scores = np.stack([engine.prefill(0, golden.tokens[0, 0, : n + 1]) for n in range(N_CTX)])
    difference = np.abs(scores - expected)
    assert difference.max() > 1e-3  # or they were not rounded at all
    assert difference.mean() < 0.05 * expected.std()
    for n in range(N_CTX):
        assert np.corrcoef(scores[n], expected[n])[0, 1] > 0.995


def test_an_engine_over_variables_follows_their_training(golden: Golden) -> None:
    variables = {name: tf.Variable(array) for name, array in golden.tensors("weights").items()}
    engine = TensorFlowEngine(variables, golden.hparams)
    text = golden.tokens[0, 0].tolist()
    engine.reset(1)
    before = engine.prefill(0, text)
    for name, array in golden.tensors("sgd_weights").items():
        variables[name].assign(array)
    engine.reset(1)
    after = engine.prefill(0, text)
    expected = scores_from_scratch(golden, text, "sgd_weights")
    np.testing.assert_allclose(after, expected, atol=1e-5)
    assert np.abs(after - before).max() > 1e-2


def test_the_graph_does_not_hold_copies_of_the_weights(golden: Golden) -> None:
    """With 124M's weights in it, several times, the first token took a minute and 9 GB."""
    engine = TensorFlowEngine(golden.tensors("weights"), golden.hparams)
    engine.prefill(0, [1, 2, 3])
    graph = engine._feed.get_concrete_function().graph
    constants = [
        np.size(tf.make_ndarray(node.get_attr("value")))
        for node in graph.get_operations()
        if node.type == "Const"
    ]
    assert max(constants) < 200  # the smallest matrix of the golden model has 24 * 24 numbers


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tensorflow", "litert"])
def test_a_hundred_texts_are_made_by_one_graph_in_the_memory_of_three(
    name: str, tmp_path: Path
) -> None:
    # A cache of 4 rows takes 4 MB in this model, so that keeping one for each text would show.
    hparams = HParams(n_vocab=40, n_ctx=256, n_embd=256, n_head=2, n_layer=2)
    weights = model.initial_weights(hparams, 0)
    if name == "litert":
        litert_conversion.convert(weights, hparams, tmp_path, "none")
        engine: Engine = LiteRTEngine(tmp_path, hparams)
    else:
        engine = TensorFlowEngine(weights, hparams)
    random = np.random.default_rng(0)

    def generate(texts: int) -> None:
        for number in range(texts):
            rows = 4 - number % 2
            engine.reset(rows)
            for row in range(rows):
                engine.prefill(row, random.integers(0, 40, 10 + (number + row) % 7 * 10).tolist())
            engine.decode(random.integers(0, 40, rows))
            engine.reorder([*range(1, rows), 0, 0])
            engine.decode(random.integers(0, 40, rows + 1))

    def alive() -> int:
        gc.collect()
        return len(gc.get_objects())

    generate(3)
    objects, memory = alive(), resident_memory()
    generate(100)
    assert alive() - objects < 100
    assert resident_memory() - memory < 80e6  # a cache for each text would be some 400 MB
    if name == "tensorflow":
        assert engine._feed.experimental_get_tracing_count() == 1


def test_memory_for_keys_grows_with_the_text_and_never_beyond_the_window() -> None:
    hparams = HParams(n_vocab=40, n_ctx=100, n_embd=8, n_head=2, n_layer=1)
    engine = TensorFlowEngine(model.initial_weights(hparams, 0), hparams)

    def room() -> int:
        return engine._keys[0].value().shape[2]

    engine.prefill(0, [1] * 5)
    small = room()
    assert small < 100
    engine.reset(3)
    assert room() == small
    engine.prefill(0, [1] * 99)
    assert room() == 100
    engine.decode(np.array([1, 1, 1]))
    assert room() == 100


@pytest.mark.slow
@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_litert_logits_are_the_same_to_the_bit_alone_and_in_a_batch(
    golden: Golden, tmp_path: Path, quantize: str
) -> None:
    litert_conversion.convert(golden.tensors("weights"), golden.hparams, tmp_path, quantize)
    engine = LiteRTEngine(tmp_path, golden.hparams, threads=2)
    random = np.random.default_rng(5)
    prompts = [random.integers(0, golden.hparams.n_vocab, n).tolist() for n in (1, 9, 4, 12, 4)]
    following = random.integers(0, golden.hparams.n_vocab, (3, len(prompts)))

    def decode(slots: list[int]) -> np.ndarray:
        engine.reset(len(slots))
        for slot, number in enumerate(slots):
            engine.prefill(slot, prompts[number])
        return np.stack([engine.decode(tokens[slots]) for tokens in following])  # [steps, B, V]

    together = decode(list(range(len(prompts))))
    for number in range(len(prompts)):
        np.testing.assert_array_equal(together[:, number], decode([number])[:, 0])


def test_a_prompt_in_parts_while_another_slot_decodes(golden: Golden, engine: Engine) -> None:
    first, second = golden.tokens[0, 0].tolist(), golden.tokens[1, 0].tolist()
    engine.reset(3)
    engine.prefill(2, first[:5])
    for start, end in ((0, 4), (4, 5), (5, 9)):
        check(golden, engine.prefill(0, second[start:end], start)[None], [second[:end]])
        held = int(engine.lengths[2])
        logits = engine.decode(np.array(first[held : held + 1]), slots=[2])
        check(golden, logits, [first[: held + 1]])
    assert engine.lengths.tolist() == [9, 0, 8]
    logits = engine.decode(np.array([first[8], second[9]]), slots=[2, 0])
    check(golden, logits, [first[:9], second[:10]])
    # A later start replaces the end of a sequence.
    check(golden, engine.prefill(2, second[:3], 4)[None], [[*first[:4], *second[:3]]])
    assert engine.lengths.tolist() == [10, 0, 7]


def test_scores_of_a_prompt_in_parts_are_those_after_each_token(
    golden: Golden, engine: Engine
) -> None:
    text = golden.tokens[0, 0].tolist()
    engine.reset(2)
    logits = np.concatenate([engine.score(1, text[:4]), engine.score(1, text[4:9], 4)])
    check(golden, logits, [text[: n + 1] for n in range(9)])
    assert engine.lengths.tolist() == [0, 9]


def test_some_slots_decode_in_any_order(golden: Golden, engine: Engine) -> None:
    texts = [golden.tokens[number, 0].tolist() for number in range(3)]
    engine.reset(5)
    for number, slot in enumerate((3, 0, 4)):
        engine.prefill(slot, texts[number][: 3 + number])
    for slots in ([3, 0, 4], [0, 3, 4], [3, 4]):
        numbers = [(3, 0, 4).index(slot) for slot in slots]
        held = engine.lengths[slots].tolist()
        tokens = [texts[number][length] for number, length in zip(numbers, held, strict=True)]
        grown = [texts[number][: length + 1] for number, length in zip(numbers, held, strict=True)]
        check(golden, engine.decode(np.array(tokens), slots), grown)
    assert engine.lengths.tolist() == [6, 0, 0, 6, 8]


def test_several_tokens_in_one_pass_and_back(golden: Golden, engine: Engine) -> None:
    text, other = golden.tokens[0, 0].tolist(), golden.tokens[1, 0].tolist()
    engine.reset(2)
    engine.prefill(0, other[:7])
    engine.prefill(1, text[:3])
    logits = engine.extend(1, text[3:7])
    check(golden, logits, [text[: n + 1] for n in range(3, 7)])
    assert engine.lengths.tolist() == [7, 7]
    engine.lengths[1] = 4  # three of the four were wrong
    check(golden, engine.extend(1, other[:2]), [[*text[:4], other[0]], [*text[:4], *other[:2]]])
    engine.lengths[1] = 1
    check(golden, engine.decode(np.array([other[7], 9])), [other[:8], [text[0], 9]])
    engine.lengths[1] = 1
    check(golden, engine.extend(1, text[1:])[-1:], [text])
    assert engine.lengths.tolist() == [8, N_CTX]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["numpy", "none", "int8"])
def test_reuse_changes_no_bit_of_the_logits(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Prompts that share beginnings with those before, in their own slot and in others."""
    monkeypatch.setattr(attention, "ROWS", 4)
    attention._mask.cache_clear()
    weights = golden.tensors("weights")
    if kind == "numpy":
        monkeypatch.setattr(NumPyEngine, "CHUNK", 4)
    else:
        litert_conversion.convert(weights, golden.hparams, tmp_path, kind)

    def new_engine() -> Engine:
        if kind == "numpy":
            return NumPyEngine(weights, golden.hparams)
        return LiteRTEngine(tmp_path, golden.hparams, threads=2)

    text, other = golden.tokens[0, 0].tolist(), golden.tokens[1, 0].tolist()
    engine = new_engine()
    engine.reset(2)
    # A slot, a prompt, tokens decoded after it, and how much of the prompt can be reused.
    calls = [
        (0, text[:10], 3, 0),
        (0, text[:10], 3, 8),  # again
        (0, text[:13], 0, 8),  # a prompt that grew
        (0, [*text[:6], *other[:6]], 2, 4),
        (1, [*text[:9]], 2, 4),  # from the other slot
        (1, text[:5], 1, 4),
        (1, text[:4], 1, 0),  # its last token has to be processed
        (0, other, 0, 0),
        (1, [*other[:8], *text[:8]], 0, 8),
    ]
    for slot, prompt, decoded, expected in calls:
        reused = engine.reuse(slot, prompt)
        assert reused == expected
        logits = [engine.prefill(slot, prompt[reused:], reused)]
        fresh = new_engine()
        fresh.reset(2)
        exact = [fresh.prefill(slot, prompt)]
        for token in text[-decoded:] if decoded else []:
            logits.append(engine.decode(np.array([token]), slots=[slot])[0])
            exact.append(fresh.decode(np.array([token]), slots=[slot])[0])
        np.testing.assert_array_equal(logits, exact)
    # Prompts stay when the number of slots changes, and move with their sequences.
    engine.reset(3)
    assert engine.reuse(2, other) == 12
    engine.reorder([2])
    engine.reset(1)
    assert engine.reuse(0, other) == 12
    expected = new_engine().prefill(0, other)
    np.testing.assert_array_equal(engine.prefill(0, other[12:], 12), expected)
    attention._mask.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_litert_logits_are_the_same_to_the_bit_one_by_one_and_in_one_pass(
    golden: Golden, tmp_path: Path, quantize: str
) -> None:
    litert_conversion.convert(golden.tensors("weights"), golden.hparams, tmp_path, quantize)
    engine = LiteRTEngine(tmp_path, golden.hparams, threads=2)
    text = golden.tokens[2, 0].tolist()
    engine.prefill(0, text[:3])
    single = np.concatenate([engine.decode(np.array([token])) for token in text[3:]])
    for size in (1, 2, 5, 13):
        engine.lengths[0] = 3
        parts = [engine.extend(0, text[at : at + size]) for at in range(3, N_CTX, size)]
        np.testing.assert_array_equal(np.concatenate(parts), single)
