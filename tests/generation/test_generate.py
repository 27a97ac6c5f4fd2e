"""Texts are what the model alone would write, whatever the batch, and fit into the window."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from gpt2 import model
from gpt2.errors import UserError
from gpt2.generation.engine import TensorFlowEngine
from gpt2.generation.generate import check_length, generate, stream
from gpt2.generation.sampling import SamplingSettings
from gpt2.hparams import HParams
from tests.golden_model import Golden

GREEDY = SamplingSettings(temperature=0)
PROMPTS = [[5], [60, 2, 33], [1, 2, 3, 4, 5, 6, 7], [9, 9], [0]]


@pytest.fixture
def engine(golden: Golden) -> TensorFlowEngine:
    return TensorFlowEngine(golden.tensors("weights"), golden.hparams)


def likeliest_text(golden: Golden, prompt: list[int], length: int) -> list[int]:
    """Greedy text without a cache, padding or batch: all is computed anew for each token."""
    tokens = list(prompt)
    for _ in range(length):
        scores = model.logits(golden.tensors("weights"), golden.hparams, tf.constant([tokens]))
        tokens.append(int(np.argmax(scores[0, -1])))
    return tokens[len(prompt) :]


def test_greedy_texts_are_those_recomputed_from_scratch(
    golden: Golden, engine: TensorFlowEngine
) -> None:
    # The longest fills the window of 16 to its last place: 7 tokens and 9 fed back, the tenth not.
    texts = generate(engine, PROMPTS, 10, GREEDY, seed=1)
    assert texts.shape == (5, 10)
    assert texts.dtype == np.int32
    assert texts.tolist() == [likeliest_text(golden, prompt, 10) for prompt in PROMPTS]


def test_a_smaller_batch_after_a_larger_one_is_right(
    golden: Golden, engine: TensorFlowEngine
) -> None:
    generate(engine, PROMPTS, 10, GREEDY, seed=1)
    for prompts, length in (([[3, 1], [8]], 4), ([[40]], 16), (PROMPTS, 2)):
        texts = generate(engine, prompts, length, GREEDY, seed=1)
        assert texts.tolist() == [likeliest_text(golden, prompt, length) for prompt in prompts]


@pytest.mark.parametrize(
    "settings", [SamplingSettings(), SamplingSettings(top_k=10), SamplingSettings(0.8, 0, 0.9)]
)
def test_a_sample_is_the_same_in_every_batch(
    engine: TensorFlowEngine, settings: SamplingSettings
) -> None:
    together = generate(engine, PROMPTS, 8, settings, seed=11).tolist()
    for size in (1, 2, 3):
        parts = [
            generate(engine, PROMPTS[first : first + size], 8, settings, 11, first).tolist()
            for first in range(0, len(PROMPTS), size)
        ]
        assert list(itertools.chain(*parts)) == together


def test_seed_and_number_of_the_sample_decide_the_text(engine: TensorFlowEngine) -> None:
    def texts(seed: int, first_sample: int = 0) -> list[list[int]]:
        return generate(engine, [[5]] * 3, 12, SamplingSettings(), seed, first_sample).tolist()

    assert texts(1) == texts(1)
    assert texts(1)[1:] == texts(1, first_sample=1)[:2]
    different = [*texts(1), *texts(2), *texts(1, first_sample=3)]
    assert len({tuple(text) for text in different}) == 9


def test_a_longer_text_begins_as_a_shorter_one(engine: TensorFlowEngine) -> None:
    settings = SamplingSettings(temperature=1.3)
    short = generate(engine, [[5, 6]], 4, settings, seed=3)
    long = generate(engine, [[5, 6]], 14, settings, seed=3)
    assert long[:, :4].tolist() == short.tolist()


def test_the_stream_yields_the_tokens_of_the_texts_one_by_one(engine: TensorFlowEngine) -> None:
    settings = SamplingSettings()
    tokens = list(stream(engine, PROMPTS, 6, settings, seed=4))
    assert np.stack(tokens, axis=1).tolist() == generate(engine, PROMPTS, 6, settings, 4).tolist()


class CountingEngine:
    """Scores that always make the next token one more than the last; records what it is fed."""

    def __init__(self, n_ctx: int = 8):
        self.hparams = HParams(n_vocab=10, n_ctx=n_ctx, n_embd=1, n_head=1, n_layer=1)
        self.fed: list[np.ndarray] = []

    def start(self, padding: np.ndarray, capacity: int) -> None:
        self.padding, self.capacity = padding, capacity

    def feed(self, tokens: np.ndarray) -> np.ndarray:
        self.fed.append(tokens)
        return np.eye(10, dtype=np.float32)[(tokens[:, -1] + 1) % 10]


def test_prompts_are_padded_on_the_left_and_each_token_is_fed_once() -> None:
    engine = CountingEngine()
    texts = generate(engine, [[1, 2, 3], [7]], 4, GREEDY, seed=0)
    assert texts.tolist() == [[4, 5, 6, 7], [8, 9, 0, 1]]
    assert engine.padding.tolist() == [0, 2]
    assert engine.capacity == 6  # the fourth token is not fed
    assert engine.fed[0][:, -1].tolist() == [3, 7]
    assert engine.fed[0][0].tolist() == [1, 2, 3]
    assert [fed.tolist() for fed in engine.fed[1:]] == [[[4], [8]], [[5], [9]], [[6], [0]]]


class FlatEngine(CountingEngine):
    """Scores that make every token equally likely."""

    def feed(self, tokens: np.ndarray) -> np.ndarray:
        return np.zeros([len(tokens), 10], np.float32)


def test_every_token_of_every_text_has_a_random_number_of_its_own() -> None:
    texts = generate(FlatEngine(n_ctx=100), [[1]] * 20, 100, SamplingSettings(), seed=0)
    # 2,000 draws of ten: 200 each, with a deviation of 13; the seed is fixed.
    assert (abs(np.bincount(texts.ravel(), minlength=10) - 200) < 5 * 13).all()
    # Two texts agree by chance in one of ten places, and so do a text and itself moved on by one.
    assert (texts[0] == texts[1]).sum() < 30
    assert (texts[:, 1:] == texts[:, :-1]).mean() == pytest.approx(0.1, abs=0.04)


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_a_text_that_is_to_stop_is_given_up(patience: int) -> None:
    engine = CountingEngine()
    asked = itertools.count(1)
    text = generate(engine, [[1]], 5, GREEDY, seed=0, stop=lambda: next(asked) >= patience)
    assert text is None
    assert len(engine.fed) == patience


def test_a_text_that_is_not_to_stop_is_finished() -> None:
    assert generate(CountingEngine(), [[1]], 5, GREEDY, 0, stop=lambda: False) is not None


def test_a_length_of_zero_is_no_text() -> None:
    engine = CountingEngine()
    assert generate(engine, [[1], [2]], 0, GREEDY, seed=0).shape == (2, 0)
    assert not engine.fed


def test_one_token_beyond_what_fits_is_refused() -> None:
    # The last token is not fed back, so a text may end one place beyond the window.
    assert generate(CountingEngine(), [[1, 2]], 7, GREEDY, seed=0).tolist()[0][-1] == 9
    for prompts in ([[1, 2]], [[1], [1, 2]]):
        with pytest.raises(UserError, match="window of 8; a length of at most 7 fits"):
            generate(CountingEngine(), prompts, 8, GREEDY, seed=0)
    with pytest.raises(UserError, match=r"prompt of 9 tokens .* window of 8"):
        generate(CountingEngine(), [[1] * 9], 1, GREEDY, seed=0)
    check_length(8, 1, 8)
    check_length(1, 8, 8)
    with pytest.raises(UserError, match="at most 0 fits"):
        check_length(1, 9, 8)


@pytest.mark.parametrize("length", [-1, 2.5, "3", None, True])
def test_a_length_that_is_no_count_is_refused(length: object) -> None:
    with pytest.raises(UserError, match="length should be a whole number of at least 0"):
        generate(CountingEngine(), [[1]], length, GREEDY, seed=0)


def test_top_k_beyond_the_vocabulary_is_refused_before_anything_is_computed() -> None:
    engine = CountingEngine()
    with pytest.raises(UserError, match="top_k is 11, but the vocabulary has only 10 tokens"):
        generate(engine, [[1]], 2, SamplingSettings(top_k=11), seed=0)
    assert not engine.fed


def test_a_prompt_of_another_vocabulary_is_refused() -> None:
    engine = CountingEngine()
    with pytest.raises(UserError, match=r"token 10, .*vocabulary ends at 9.*encoder\.json"):
        generate(engine, [[1, 2], [3, 10]], 2, GREEDY, seed=0)
    assert not engine.fed
