"""Each token but the first is predicted once, from what stands before it in its window."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf

from gpt2 import model
from gpt2.errors import UserError
from gpt2.evaluation import scoring
from gpt2.evaluation.scoring import Scorer, Scores
from gpt2.evaluation.windows import WindowSettings
from tests.golden_model import Golden


@pytest.fixture(autouse=True)
def no_warning() -> Iterator[None]:
    """TensorFlow has nothing to say, in particular not that a function is traced too often."""
    said: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = said.append
    tf.get_logger().addHandler(handler)
    yield
    tf.get_logger().removeHandler(handler)
    assert not said


@pytest.fixture(scope="module")
def scorer(golden: Golden) -> Scorer:
    return Scorer(golden.tensors("weights"), golden.hparams)


@pytest.fixture(scope="module")
def text(golden: Golden) -> np.ndarray:
    return golden.tokens.ravel()  # 320 tokens; the model's window is 16


def score(scorer: Scorer, text: np.ndarray, *cut: int) -> Scores:
    [scores] = scorer.score([text], WindowSettings(*cut) if cut else None)
    return scores


def one_by_one(golden: Golden, text: np.ndarray, window: int, stride: int) -> np.ndarray:
    """Nats, rank and entropy of each token, by the plain model and by the definitions: [3, T]."""
    found = []
    for place in range(1, len(text)):
        # The first window that has this token's predecessor among its inputs.
        start = 0
        while start + window < place:
            start += stride
        before = tf.constant(text[None, start:place], tf.int32)
        weights = golden.tensors("weights")
        scores = model.logits(weights, golden.hparams, before).numpy()[0, -1].astype(np.float64)
        p = np.exp(scores) / np.exp(scores).sum()
        own = p[text[place]]
        found.append([-np.log(own), np.sum(p > own), -np.sum(p * np.log(p))])
    return np.transpose(found)


def test_the_loss_and_the_ranks_are_those_of_the_independent_implementation(
    golden: Golden, scorer: Scorer
) -> None:
    both = list(scorer.score(golden.tokens[0]))
    nats = np.array([scores.nats for scores in both])  # [2, 15]
    assert nats.mean() == pytest.approx(float(golden.arrays["loss"]), rel=1e-5)
    logits = golden.arrays["logits"][:, :-1].astype(np.float64)
    targets = golden.tokens[0][:, 1:, None]
    ranks = np.sum(logits > np.take_along_axis(logits, targets, -1), axis=-1)
    np.testing.assert_array_equal([scores.ranks for scores in both], ranks)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(nats, -np.log(np.take_along_axis(p, targets, -1)[..., 0]), rtol=1e-4)
    entropies = np.array([scores.entropies for scores in both])
    np.testing.assert_allclose(entropies, -(p * np.log(p)).sum(-1), rtol=1e-4)


@pytest.mark.parametrize(
    ("length", "window", "stride"),
    [(2, 16, 16), (17, 16, 16), (18, 16, 16), (37, 16, 16), (37, 16, 5), (40, 7, 7), (40, 7, 1)],
)
def test_each_token_is_scored_as_by_itself(
    golden: Golden, scorer: Scorer, text: np.ndarray, length: int, window: int, stride: int
) -> None:
    ours = score(scorer, text[:length], window, stride)
    nats, ranks, entropies = one_by_one(golden, text[:length], window, stride)
    np.testing.assert_allclose(ours.nats, nats, rtol=1e-4)
    np.testing.assert_array_equal(ours.ranks, ranks)
    np.testing.assert_allclose(ours.entropies, entropies, rtol=1e-4)


def test_a_window_of_one_is_the_models_table_of_pairs(
    golden: Golden, scorer: Scorer, text: np.ndarray
) -> None:
    """Each token from the one before it alone: one look at every token fills the table."""
    every = np.arange(golden.hparams.n_vocab)[:, None]
    logits = model.logits(golden.tensors("weights"), golden.hparams, tf.constant(every)).numpy()
    table = tf.nn.log_softmax(logits[:, 0]).numpy()  # [V, V]
    ours = score(scorer, text, 1, 1)
    np.testing.assert_allclose(ours.nats, -table[text[:-1], text[1:]], rtol=1e-4)


def test_the_batch_size_changes_nothing(golden: Golden, text: np.ndarray) -> None:
    weights = golden.tensors("weights")
    texts = [text, text[:40], text[7:9], text[3:30], text[:1], text[:0], text[50:160]]
    single, *others = (
        list(Scorer(weights, golden.hparams, size).score(texts, WindowSettings(16, 4)))
        for size in (1, 3, 64)
    )
    assert [len(scores.nats) for scores in single] == [319, 39, 1, 26, 0, 0, 109]
    for other in others:
        for ours, theirs in zip(single, other, strict=True):
            np.testing.assert_allclose(ours.nats, theirs.nats, rtol=1e-5)
            np.testing.assert_array_equal(ours.ranks, theirs.ranks)


@pytest.mark.parametrize("length", [1, 2, 9])
def test_endings_are_scored_as_whole_texts(scorer: Scorer, text: np.ndarray, length: int) -> None:
    beginning, endings = text[:length], [text[20:23], text[30:31], text[40:48]]
    found = scorer.score_endings(beginning, endings)
    whole = scorer.score(np.concatenate([beginning, ending]) for ending in endings)
    for nats, scores in zip(found, whole, strict=True):
        np.testing.assert_allclose(nats, scores.nats[length - 1 :], rtol=1e-5)


def test_progress_counts_the_predicted_tokens(scorer: Scorer, text: np.ndarray) -> None:
    seen: list[int] = []
    list(scorer.score([text[:50], text[:1], text[:20]], WindowSettings(16, 3), seen.append))
    assert sum(seen) == 49 + 19


def test_many_texts_come_one_after_the_other(
    scorer: Scorer, text: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts are taken from their source as they are needed, and given back in their order."""
    monkeypatch.setattr(scoring, "TEXTS", 3)
    taken = []

    def source():
        for length in (5, 3, 9, 4, 2, 8, 3):
            taken.append(length)
            yield text[:length]

    lengths = []
    for scores in scorer.score(source()):
        lengths.append(len(scores.nats) + 1)
        assert len(taken) <= len(lengths) + 3
    assert lengths == taken


def test_small_token_types_are_taken(scorer: Scorer, text: np.ndarray) -> None:
    expected = score(scorer, text[:40]).nats
    np.testing.assert_array_equal(score(scorer, text[:40].astype(np.uint16)).nats, expected)


def test_the_logits_of_a_batch_do_not_exist_at_once(
    golden: Golden, monkeypatch: pytest.MonkeyPatch, text: np.ndarray
) -> None:
    """Slices give what the whole does, and no slice is larger than it may be."""
    weights = golden.tensors("weights")
    whole = score(Scorer(weights, golden.hparams, 8), text)
    monkeypatch.setattr(scoring, "HEAD_ROWS", 50)
    multiplied = []
    matmul = tf.matmul

    def watched(a: tf.Tensor, b: tf.Tensor, **options: bool) -> tf.Tensor:
        multiplied.append((a.shape, b.shape))
        return matmul(a, b, **options)

    monkeypatch.setattr(scoring.tf, "matmul", watched)
    sliced = score(Scorer(weights, golden.hparams, 8), text)
    np.testing.assert_allclose(sliced.nats, whole.nats, rtol=1e-6)
    heads = [a[0] for a, b in multiplied if b[0] == golden.hparams.n_vocab]
    assert heads
    assert max(heads) == 50


@pytest.mark.parametrize("name", ["model/wte", "model/ln_f/g", "model/h0/mlp/c_proj/w"])
def test_scores_that_overflow_are_refused(golden: Golden, text: np.ndarray, name: str) -> None:
    weights = golden.tensors("weights")
    huge = np.where(weights[name] > 0, 3e38, -3e38).astype(np.float32)
    broken = Scorer({**weights, name: huge}, golden.hparams)
    with pytest.raises(UserError, match="not finite"):
        score(broken, text)
    with pytest.raises(UserError, match="not finite"):
        broken.score_endings(text[:4], [text[4:6], text[6:9]])
