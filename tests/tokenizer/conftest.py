"""What the tests of the tokenizer share: a generator that tells its seed, GPT-2's vocabulary."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from gpt2.tokenizer import Tokenizer


@pytest.fixture
def generator() -> random.Random:
    """A random generator; its seed is printed, and shown when the test fails."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.fixture(scope="session")
def gpt2_tokenizer(shared_data: Path) -> Tokenizer:
    """GPT-2's own tokenizer, from OpenAI's files."""
    return Tokenizer.load(shared_data / "gpt2")
