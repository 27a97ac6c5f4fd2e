"""What the tests of the data room share: a vocabulary whose ids are the bytes themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from gpt2.data.samplers import Batch
from gpt2.tokenizer import ENDOFTEXT, Tokenizer
from gpt2.tokenizer.vocabulary import CHARACTER_OF_BYTE

BYTES = {character: byte for byte, character in CHARACTER_OF_BYTE.items()}


def whole_chunks(chunks: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, bool]]:
    """The chunks as parts, each the last of its chunk, as `write_parts` takes them."""
    return ((chunk, True) for chunk in chunks)


@pytest.fixture
def bytes_only() -> Tokenizer:
    """A token for each byte, its id the byte, and no other: "AB" is 65, 66."""
    return Tokenizer(BYTES, [])


@pytest.fixture
def bytes_and_endoftext() -> Tokenizer:
    """As `bytes_only`, with `<|endoftext|>` as token 256."""
    return Tokenizer(BYTES | {ENDOFTEXT: 256}, [])


def rows_of(batch: Batch) -> np.ndarray:
    """Return the token ids of an unpacked batch, int32 [B, T + 1]."""
    assert (batch.inputs[:, 1:] == batch.targets[:, :-1]).all()
    return np.concatenate([batch.inputs[:, :1], batch.targets], axis=1)
