"""Texts to be scored: their tokens, and how many words and bytes those stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpt2.data.readers import BYTE_ORDER_MARK, UTF_8, ReaderSettings, read_pieces
from gpt2.data.tokenization import check_ids, find_files, read_chunks
from gpt2.errors import UserError
from gpt2.hparams import HParams
from gpt2.tokenizer import ENDOFTEXT, Tokenizer


@dataclass(frozen=True)
class ScoredText:
    """A text as tokens, with the sizes that its nats are divided by.

    Attributes:
        tokens: ids, int32 [T + 1]: T of them are predicted, the first one is not.
        words: between white space, in the original text.
        size: of the original text, in bytes of UTF-8; marks between documents are not counted.
    """

    tokens: np.ndarray
    words: int
    size: int

    @property
    def predicted(self) -> int:
        """Tokens that are predicted."""
        return len(self.tokens) - 1


class TextEncoder:
    """A model's vocabulary, for making scored texts.

    A text begins after `<|endoftext|>`, as any text does for GPT-2, so that all of its tokens are
    predicted; where the vocabulary has no such token, the first one is not.
    """

    def __init__(self, tokenizer: Tokenizer, hparams: HParams):
        self._tokenizer = tokenizer
        self._n_vocab = hparams.n_vocab
        self._mark = tokenizer.endoftext
        self._start = np.array([] if self._mark is None else [self._mark], np.int32)

    def encode(self, text: str) -> np.ndarray:
        """The tokens of a text alone, int32 [T].

        Raises:
            UserError: the vocabulary cannot spell it, or the model has less tokens.
        """
        ids = self._tokenizer.encode_array(text)
        return check_ids(ids, self._tokenizer, self._n_vocab).astype(np.int32)

    def begun(self, tokens: np.ndarray) -> np.ndarray:
        """These tokens after the one that a text begins after, int32."""
        return np.concatenate([self._start, tokens]).astype(np.int32)

    def text(
        self,
        documents: Iterable[str],
        name: str,
        detokenize: Callable[[str], str] = lambda text: text,
        line_ends: bool = False,
    ) -> ScoredText:
        """DocumentSet as one text, `<|endoftext|>` between them.

        Args:
            documents: as they stand in their file; words and bytes are counted in them.
            name: for sentences to the user.
            detokenize: what the model is shown of a document.
            line_ends: whether the end of a line counts as a word.

        Raises:
            UserError: there are less than two tokens; see `encode`.
        """
        parts: list[np.ndarray] = []
        words = size = 0
        for document in documents:
            parts.append(self.begun(self.encode(detokenize(document))))
            words += len(document.split()) + (len(document.splitlines()) if line_ends else 0)
            size += len(document.encode())
        if not parts:
            raise UserError(f"{name} holds no text.")
        tokens = np.concatenate(parts)
        self._check_length(len(tokens) - len(self._start), name)
        return ScoredText(tokens, words, size)

    def text_of_tokens(self, chunks: Iterable[np.ndarray], name: str) -> ScoredText:
        """Tokens as one text; words and bytes are counted in what they spell.

        Raises:
            UserError: there are less than two.
        """
        tokens = np.concatenate([np.empty(0, np.int32), *chunks])
        if len(tokens) and tokens[-1] == self._mark:  # it closes the last document
            tokens = tokens[:-1]
        self._check_length(len(tokens), name)
        words = size = 0
        for document in np.split(tokens, np.flatnonzero(tokens == self._mark)):
            spelled = self._tokenizer.decode_bytes(document[document != self._mark].tolist())
            words += len(spelled.decode("utf-8", errors="replace").split())
            size += len(spelled)
        return ScoredText(self.begun(tokens), words, size)

    def read(
        self,
        path: str,
        reading: ReaderSettings = UTF_8,
        detokenize: Callable[[str], str] | None = None,
        line_ends: bool = False,
    ) -> ScoredText:
        """All documents of a file, folder or pattern as one text.

        Args:
            path: text or records; or tokens, if there is nothing to detokenize.

        Raises:
            UserError: a file cannot be read or decoded; see `text` and `text_of_tokens`.
        """
        files = find_files(path)
        if detokenize is None and not line_ends and any(file.suffix == ".npz" for file in files):
            chunks = read_chunks(files, self._tokenizer, self._n_vocab, reading=reading)
            return self.text_of_tokens(chunks, path)
        detokenize = detokenize or (lambda text: text)
        return self.text(documents(path, reading), path, detokenize, line_ends)

    def _check_length(self, tokens: int, name: str) -> None:
        if tokens < 2:
            raise UserError(
                f"{name} is shorter than two tokens: there is nothing in it to predict."
            )


def documents(path: str, reading: ReaderSettings = UTF_8) -> Iterator[str]:
    """The documents of text files, each whole, as they stand there; blank ones are left out.

    `<|endoftext|>` in a text stands between two of them.

    Raises:
        UserError: a file cannot be read or decoded, or holds tokens.
    """
    files = find_files(path)
    for file in files:
        if Path(file).suffix == ".npz":
            raise UserError(f"{file} holds tokens; give the text that they were made of.")
        parts: list[str] = []
        for piece in read_pieces(file, reading, skip_binary=len(files) > 1):
            parts.append(piece.text)
            if piece.ends:
                document = "".join(parts).removeprefix(BYTE_ORDER_MARK)
                parts.clear()
                for part in document.split(ENDOFTEXT):
                    if part.strip():
                        yield part
