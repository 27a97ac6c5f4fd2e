"""The engine says what the model says, and keeps no more than it needs."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from gpt2 import model
from gpt2.generation.engine import TensorFlowEngine
from gpt2.hparams import HParams
from tests.golden_model import Golden

NO_PADDING = np.zeros(2, np.int32)


@pytest.fixture
def engine(golden: Golden) -> TensorFlowEngine:
    return TensorFlowEngine(golden.tensors("weights"), golden.hparams)


@pytest.mark.parametrize("pieces", [[1] * 16, [16], [3, 1, 7, 5], [15, 1]], ids=str)
def test_scores_are_those_of_the_independent_implementation_however_tokens_are_fed(
    golden: Golden, engine: TensorFlowEngine, pieces: list[int]
) -> None:
    tokens, expected = golden.tokens[0], golden.arrays["logits"]  # [2, 16], [2, 16, 61]
    engine.start(NO_PADDING, 16)
    fed = 0
    for size in pieces:
        scores = engine.feed(tokens[:, fed : fed + size])
        fed += size
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, expected[:, fed - 1], atol=1e-5)


def test_padding_on_the_left_changes_no_score(golden: Golden, engine: TensorFlowEngine) -> None:
    """Rows of different lengths in one batch, fed in two pieces that begin inside the padding."""
    rows = [golden.tokens[number, 0] for number in range(4)]
    lengths = [1, 5, 9, 12]
    padding = np.array([12 - length for length in lengths], np.int32)
    # What stands in the padding must not matter either.
    tokens = np.stack(
        [
            np.concatenate([golden.tokens[9, 1, :gap], row[:length]])
            for row, length, gap in zip(rows, lengths, padding, strict=True)
        ]
    )
    engine.start(padding, 16)
    engine.feed(tokens[:, :4])
    scores = engine.feed(tokens[:, 4:])
    for more in range(5):
        for row, length, score in zip(rows, lengths, scores, strict=True):
            alone = row[None, : length + more]
            expected = model.logits(golden.tensors("weights"), golden.hparams, alone)[0, -1]
            np.testing.assert_allclose(score, expected, atol=1e-5)
        if more < 4:
            following = [row[length + more] for row, length in zip(rows, lengths, strict=True)]
            scores = engine.feed(np.array(following, np.int32)[:, None])


def test_a_batch_knows_nothing_of_the_batch_before(
    golden: Golden, engine: TensorFlowEngine
) -> None:
    tokens, expected = golden.tokens, golden.arrays["logits"]
    # A larger one, a longer one, one of the same size and the same one again.
    for other in (
        np.concatenate([tokens[1], tokens[2], tokens[3]]),
        tokens[4],
        tokens[5, :, :7],
        tokens[0, :, ::-1],
    ):
        padding = np.arange(len(other), dtype=np.int32)
        engine.start(padding, 16)
        engine.feed(other)
        engine.start(NO_PADDING, 9)
        np.testing.assert_allclose(engine.feed(tokens[0, :, :9]), expected[:, 8], atol=1e-5)


def test_rows_of_a_batch_know_nothing_of_each_other(
    golden: Golden, engine: TensorFlowEngine
) -> None:
    engine.start(NO_PADDING, 8)
    together = engine.feed(golden.tokens[0, :, :8])
    engine.start(NO_PADDING, 8)
    other = golden.tokens[0, :, :8].copy()
    other[1] = golden.tokens[3, 1, :8]
    np.testing.assert_allclose(engine.feed(other)[0], together[0], atol=1e-6)


def test_an_engine_over_variables_follows_their_training(golden: Golden) -> None:
    variables = {name: tf.Variable(array) for name, array in golden.tensors("weights").items()}
    engine = TensorFlowEngine(variables, golden.hparams)
    engine.start(NO_PADDING, 16)
    engine.feed(golden.tokens[0])
    for name, array in golden.tensors("sgd_weights").items():
        variables[name].assign(array)
    engine.start(NO_PADDING, 16)
    expected = model.logits(golden.tensors("sgd_weights"), golden.hparams, golden.tokens[0])
    np.testing.assert_allclose(engine.feed(golden.tokens[0]), expected[:, -1], atol=1e-5)


def test_the_graph_does_not_hold_copies_of_the_weights(engine: TensorFlowEngine) -> None:
    """With 124M's weights in it, several times, the first token took a minute and 9 GB."""
    engine.start(NO_PADDING, 4)
    engine.feed(np.ones([2, 4], np.int32))
    graph = engine._step.get_concrete_function().graph
    constants = [
        np.size(tf.make_ndarray(node.get_attr("value")))
        for node in graph.get_operations()
        if node.type == "Const"
    ]
    assert max(constants) < 200  # the smallest matrix of the golden model has 24 * 24 numbers


def test_a_hundred_texts_are_made_by_one_graph_in_the_memory_of_ten() -> None:
    # A cache of 8 rows takes 8 MB in this model, so that keeping one for each text would show.
    hparams = HParams(n_vocab=50, n_ctx=256, n_embd=256, n_head=2, n_layer=2)
    engine = TensorFlowEngine(model.fresh_weights(hparams, 0), hparams)
    random = np.random.default_rng(0)

    def write(texts: int) -> None:
        for number in range(texts):
            rows, prompt = 8 - number % 3, 10 + number % 7
            engine.start(np.arange(rows, dtype=np.int32), 256 - number % 5)
            engine.feed(random.integers(0, 50, [rows, prompt], np.int32))
            engine.feed(random.integers(0, 50, [rows, 1], np.int32))

    def alive() -> int:
        gc.collect()
        return len(gc.get_objects())

    variables = [id(variable) for variable in (*engine._keys, *engine._values)]
    write(10)
    objects, memory = alive(), resident_memory()
    write(100)
    assert engine._step.experimental_get_tracing_count() == 1
    assert [id(variable) for variable in (*engine._keys, *engine._values)] == variables
    assert alive() - objects < 100
    assert resident_memory() - memory < 100e6  # a cache for each text would be some 700 MB


def resident_memory() -> int:
    """Bytes of memory this process holds; 0 where the system has no such file."""
    path = Path("/proc/self/statm")
    if not path.exists():
        assert sys.platform != "linux"
        return 0
    return int(path.read_text().split()[1]) * 4096


def test_a_text_of_the_same_shape_reuses_the_cache(engine: TensorFlowEngine) -> None:
    engine.start(NO_PADDING, 12)
    places = [variable.value().numpy().shape for variable in engine._keys]
    engine.start(NO_PADDING, 5)  # there is room enough
    assert [variable.value().numpy().shape for variable in engine._keys] == places
    engine.start(NO_PADDING, 16)
    assert engine._keys[0].value().shape[2] == 16
