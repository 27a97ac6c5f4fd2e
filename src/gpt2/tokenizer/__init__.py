"""GPT-2's byte-level BPE tokenizer: encoding, decoding and training a vocabulary."""

from gpt2.tokenizer.bpe import Tokenizer
from gpt2.tokenizer.training import train_vocabulary
from gpt2.tokenizer.vocabulary import (
    ENCODER_FILE,
    ENDOFTEXT,
    MERGES_FILE,
    read_encoder,
    read_merges,
    read_vocabulary,
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
    "read_vocabulary",
    "train_vocabulary",
    "with_tokens",
    "write_vocabulary",
]
