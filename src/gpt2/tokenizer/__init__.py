"""Text to GPT-2's tokens and back, and learning a vocabulary of such tokens from text."""

from gpt2.tokenizer.bpe import Tokenizer
from gpt2.tokenizer.training import train_vocabulary
from gpt2.tokenizer.vocabulary import (
    ENCODER_FILE,
    ENDOFTEXT,
    MERGES_FILE,
    read_encoder,
    read_merges,
    with_tokens,
    write_vocabulary,
)

__all__ = [
    "ENCODER_FILE",
    "ENDOFTEXT",
    "MERGES_FILE",
    "Tokenizer",
    "read_encoder",
    "read_merges",
    "train_vocabulary",
    "with_tokens",
    "write_vocabulary",
]
