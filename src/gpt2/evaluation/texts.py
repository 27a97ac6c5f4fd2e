"""Texts for evaluation: their tokens, and the words and bytes that nats are divided by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpt2.data.readers import (
    BYTE_ORDER_MARK,
    UTF_8,
    ReaderSettings,
    normalize_line_ends,
    read_pieces,
)
from gpt2.data.tokenization import check_ids, find_files, read_chunks
from gpt2.errors import UserError
from gpt2.hparams import HParams
from gpt2.tokenizer import ENDOFTEXT, Tokenizer


@dataclass(frozen=True)
class ScoredText:
    """A text as tokens, with the counts that its nats are divided by.

    Attributes:
        tokens: ids, int32 [T + 1]: T of them are predicted, the first one is not.
        words: of the original text, separated by white space.
        size: bytes of the original text in UTF-8, with its own line ends. `<|endoftext|>` between
            documents is not counted. Tables and files of tokens have no line end but a newline.
    """

    tokens: np.ndarray
    words: int
    size: int

    @property
    def predicted(self) -> int:
        """Return the number of predicted tokens."""
        return len(self.tokens) - 1


class TextEncoder:
    """Makes scored texts with the vocabulary of a model.

    Each document follows `<|endoftext|>`, as in the training of GPT-2, so that all of its tokens
    are predicted, even a single one. Without this token in the vocabulary, the first token of the
    text is not predicted.
    """

    def __init__(self, tokenizer: Tokenizer, hparams: HParams):
        self._tokenizer = tokenizer
        self._n_vocab = hparams.n_vocab
        endoftext = tokenizer.endoftext
        self._start = np.array([] if endoftext is None else [endoftext], np.int32)

    def encode(self, text: str) -> np.ndarray:
        """Return the tokens of a text with newlines as line ends, as in training: int32 [T].

        Raises:
            UserError: the vocabulary cannot encode the text, or the model has fewer tokens.
        """
        ids = self._tokenizer.encode_array(normalize_line_ends(text))
        return check_ids(ids, self._tokenizer, self._n_vocab).astype(np.int32)

    def begun(self, tokens: np.ndarray) -> np.ndarray:
        """Return the tokens of a document after `<|endoftext|>`: int [T] -> int32 [T + 1]."""
        return np.concatenate([self._start, tokens]).astype(np.int32)

    def text(
        self,
        documents: Iterable[str],
        name: str,
        detokenize: Callable[[str], str] = lambda text: text,
        line_ends: bool = False,
    ) -> ScoredText:
        """Return documents as one text.

        Args:
            documents: as they are in their file; words and bytes are counted in them.
            name: of the file, for messages.
            detokenize: applied to each document, with newlines as line ends, before it is encoded.
            line_ends: whether the end of a line counts as a word.

        Raises:
            UserError: there is nothing to predict; see `encode`.
        """
        parts: list[np.ndarray] = []
        words = size = 0
        for document in documents:
            text = normalize_line_ends(document)
            parts.append(self.begun(self.encode(detokenize(text))))
            words += len(text.split()) + (count_lines(text) if line_ends else 0)
            size += len(document.encode())
        return self._scored(parts, words, size, name)

    def text_of_tokens(self, chunks: Iterable[np.ndarray], name: str) -> ScoredText:
        """Return tokens as one text; words and bytes are counted in the text that they decode to.

        Args:
            chunks: the consecutive parts of the tokens, ids [T] each, `<|endoftext|>` between
                documents.
            name: of the file, for messages.

        Raises:
            UserError: there is nothing to predict.
        """
        tokens = np.concatenate([np.empty(0, np.int32), *chunks])
        parts: list[np.ndarray] = []
        words = size = 0
        for part in np.split(tokens, np.flatnonzero(np.isin(tokens, self._start))):
            document = part[~np.isin(part, self._start)]
            content = self._tokenizer.decode_bytes(document.tolist())
            text = content.decode("utf-8", errors="replace")
            if text.strip():  # as in `documents`
                parts.append(self.begun(document))
                words += len(text.split())
                size += len(content)
        return self._scored(parts, words, size, name)

    def read(
        self,
        path: str,
        reading: ReaderSettings = UTF_8,
        detokenize: Callable[[str], str] | None = None,
        line_ends: bool = False,
    ) -> ScoredText:
        """Return all documents of a file, folder or pattern as one text.

        Args:
            path: text or records; or tokens (.npz), unless they would have to be detokenized.
            detokenize, line_ends: see `text`.

        Raises:
            UserError: a file cannot be read or decoded; see `text` and `text_of_tokens`.
        """
        files = find_files(path)
        if detokenize is None and not line_ends and any(file.suffix == ".npz" for file in files):
            chunks = read_chunks(files, self._tokenizer, self._n_vocab, reading=reading)
            return self.text_of_tokens(chunks, path)
        detokenize = detokenize or (lambda text: text)
        return self.text(documents(path, reading), path, detokenize, line_ends)

    def _scored(self, parts: list[np.ndarray], words: int, size: int, name: str) -> ScoredText:
        if not parts:
            raise UserError(f"{name}: no text found.")
        tokens = np.concatenate(parts)
        if len(tokens) < 2:
            raise UserError(
                f"{name}: nothing to predict. The text has one token, and the vocabulary has no "
                f"{ENDOFTEXT} to predict it from."
            )
        return ScoredText(tokens, words, size)


def count_lines(text: str) -> int:
    r"""Return the number of lines, which only `\n` ends.

    Example:
        >>> count_lines("one\ntwo\u2028two")
        2
    """
    return text.count("\n") + (not text.endswith("\n") and text != "")


def documents(path: str, reading: ReaderSettings = UTF_8) -> Iterator[str]:
    """Yield the documents of text files, with their own line ends; blank ones are left out.

    `<|endoftext|>` in a text separates documents.

    Raises:
        UserError: a file cannot be read or decoded, or contains tokens.
    """
    files = find_files(path)
    for file in files:
        if Path(file).suffix == ".npz":
            raise UserError(f"{file}: contains tokens. Give the text that they were encoded from.")
        parts: list[str] = []
        for piece in read_pieces(file, reading, skip_binary=len(files) > 1, keep_line_ends=True):
            parts.append(piece.text)
            if piece.ends:
                document = "".join(parts).removeprefix(BYTE_ORDER_MARK)
                parts.clear()
                for part in document.split(ENDOFTEXT):
                    if part.strip():
                        yield part
