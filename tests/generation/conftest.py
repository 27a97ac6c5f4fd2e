"""What the tests of the generation room share: both engines over the golden model's weights."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from gpt2 import model
from gpt2.generation import litert_conversion
from gpt2.generation.engine import Engine
from gpt2.generation.litert_engine import LiteRTEngine
from gpt2.generation.numpy_engine import NumPyEngine
from gpt2.generation.tensorflow_engine import TensorFlowEngine
from gpt2.hparams import HParams
from gpt2.tokenizer import ENDOFTEXT, Tokenizer
from gpt2.tokenizer.vocabulary import CHARACTER_OF_BYTE
from tests.golden_model import Golden

ENGINES = ("tensorflow", "litert", "numpy")


@pytest.fixture(scope="session", autouse=True)
def _small_heads() -> Iterator[None]:
    """So few tokens in each part of the head that small vocabularies too have several parts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(litert_conversion, "HEAD_ROWS", 45)
        yield


@pytest.fixture(scope="session")
def converted(golden: Golden, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden model's LiteRT programs."""
    folder = tmp_path_factory.mktemp("converted")
    litert_conversion.convert(golden.tensors("weights"), golden.hparams, folder, "none")
    return folder


@pytest.fixture(scope="session")
def engines(golden: Golden, converted: Path) -> Callable[[str], Engine]:
    """Return the engine of a name over the golden model, the same one for all tests.

    Tracing the graph of TensorFlow's takes longer than most tests, and each must reset its engine.
    """

    @functools.cache
    def engine(name: str) -> Engine:
        if name == "litert":
            return LiteRTEngine(converted, golden.hparams, threads=2)
        if name == "numpy":
            return NumPyEngine(golden.tensors("weights"), golden.hparams)
        return TensorFlowEngine(golden.tensors("weights"), golden.hparams)

    return engine


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, engines: Callable[[str], Engine]) -> Engine:
    """An engine over the golden model; each test that asks for one runs with all of them."""
    return engines(request.param)


def alphabet(n_vocab: int, endoftext: int | None = None) -> Tokenizer:
    """A tokenizer without merges: each token is the byte of its id, but for one that ends texts."""
    vocabulary = {CHARACTER_OF_BYTE[byte]: byte for byte in range(min(n_vocab, 256))}
    if endoftext is not None:
        vocabulary = {name: byte for name, byte in vocabulary.items() if byte != endoftext}
        vocabulary[ENDOFTEXT] = endoftext
    return Tokenizer(vocabulary, [])


def scores_from_scratch(golden: Golden, tokens: list[int], kind: str = "weights") -> np.ndarray:
    """The model's scores of what follows, float32 [V], without any cache."""
    return _last_scores(golden, kind)(tf.constant([tokens], tf.int32)).numpy()


@functools.cache
def _last_scores(golden: Golden, kind: str) -> Callable[[tf.Tensor], tf.Tensor]:
    weights = {name: tf.constant(array) for name, array in golden.tensors(kind).items()}
    return tf.function(
        lambda tokens: model.logits(weights, golden.hparams, tokens)[0, -1],
        input_signature=[tf.TensorSpec([1, None], tf.int32)],
    )


def resident_memory() -> int:
    """Bytes of memory this process holds; 0 where the system has no such file."""
    path = Path("/proc/self/statm")
    if not path.exists():
        assert sys.platform != "linux"
        return 0
    return int(path.read_text().split()[1]) * 4096


class CountingEngine:
    """Scores that always make the next token one more than the last; remembers all it was asked.

    It checks what every engine may rely on: rows that exist, no row beyond the window.
    """

    def __init__(self, n_vocab: int = 10, n_ctx: int = 8):
        self.hparams = HParams(n_vocab=n_vocab, n_ctx=n_ctx, n_embd=1, n_head=1, n_layer=1)
        self.calls: list[tuple] = []
        self.reset(1)

    def reset(self, rows: int) -> None:
        self.rows: list[list[int]] = [[] for _ in range(rows)]
        self.calls.append(("start", rows))

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(row) for row in self.rows], np.int64)

    def reuse(self, row: int, tokens: list[int]) -> int:
        return 0

    def prefill(self, row: int, tokens: list[int], start: int = 0) -> np.ndarray:
        assert start == 0
        assert 1 <= len(tokens) <= self.hparams.n_ctx
        self.rows[row] = list(tokens)
        self.calls.append(("prime", row, list(tokens)))
        return self.scores(self.rows[row])

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        assert tokens.shape == (len(self.rows),)
        assert tokens.dtype.kind == "i"
        assert (self.lengths < self.hparams.n_ctx).all()
        for row, token in zip(self.rows, tokens.tolist(), strict=True):
            assert row, "a row that was never primed"
            row.append(token)
        self.calls.append(("step", tokens.tolist()))
        return np.stack([self.scores(row) for row in self.rows])

    def reorder(self, sources: list[int]) -> None:
        self.rows = [list(self.rows[source]) for source in sources]
        self.calls.append(("reorder", list(sources)))

    def scores(self, tokens: list[int]) -> np.ndarray:
        return np.eye(self.hparams.n_vocab, dtype=np.float32)[
            (tokens[-1] + 1) % self.hparams.n_vocab
        ]


class FlatEngine(CountingEngine):
    """Scores that make every token equally likely."""

    def scores(self, tokens: list[int]) -> np.ndarray:
        return np.zeros(self.hparams.n_vocab, np.float32)


class ScriptedEngine(CountingEngine):
    """Scores that make the engine write given tokens, whatever it is fed: prompt -> what follows.

    The prompt is a single token, by which the rows are told apart.
    """

    def __init__(self, script: dict[int, list[int]], n_vocab: int = 257, n_ctx: int = 64):
        self.script = script
        super().__init__(n_vocab, n_ctx)

    def scores(self, tokens: list[int]) -> np.ndarray:
        following = self.script[tokens[0]][len(tokens) - 1]
        return np.eye(self.hparams.n_vocab, dtype=np.float32)[following]
