"""A vocabulary that is easy to follow by hand, and a scorer whose answers are written down."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pytest

from gpt2.evaluation.scoring import Scores
from gpt2.evaluation.texts import TextEncoder
from gpt2.hparams import HParams
from gpt2.tokenizer import Tokenizer, train_vocabulary


@pytest.fixture(scope="session")
def byte_tokenizer() -> Tokenizer:
    """Every byte is a token, and `<|endoftext|>` is one."""
    return Tokenizer(*train_vocabulary([], 257))


@pytest.fixture(scope="session")
def byte_vocabulary(byte_tokenizer: Tokenizer) -> TextEncoder:
    return TextEncoder(byte_tokenizer, HParams(n_vocab=257, n_ctx=1024))


class WrittenScorer:
    """Gives each token what a rule says of it: nats, rank, rank without stop words."""

    def __init__(self, rule: Callable[[str, int], tuple[float, int, int]], tokenizer: Tokenizer):
        self._rule = rule
        self._tokenizer = tokenizer
        self.seen: list[str] = []

    def score(
        self, texts: Iterable[np.ndarray], cut: object = None, progress: object = None
    ) -> Iterator[Scores]:
        for tokens in texts:
            text = self._tokenizer.decode(tokens.tolist())
            self.seen.append(text)
            places = range(1, len(tokens))
            offset = len(text) - len(tokens)  # the first token may be longer than a byte
            rows = [self._rule(text, offset + place) for place in places]
            nats, ranks, content = np.array(rows).T
            yield Scores(
                nats.astype(np.float32), ranks.astype(int), np.zeros(len(rows)), content.astype(int)
            )

    def score_endings(
        self, beginning: np.ndarray, endings: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        found = self.score(np.concatenate([beginning, ending]) for ending in endings)
        return [scores.nats[-len(ending) :] for scores, ending in zip(found, endings, strict=True)]


@pytest.fixture
def written_scorer(byte_tokenizer: Tokenizer) -> Callable[..., WrittenScorer]:
    return lambda rule: WrittenScorer(rule, byte_tokenizer)
