"""From files of text, or of tokens, to tokens: in chunks for training, or document by document."""

from __future__ import annotations

import codecs
import contextlib
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from gpt2.data import npz
from gpt2.data.readers import BYTE_ORDER_MARK, UTF_8, Piece, ReaderSettings, read_pieces
from gpt2.data.sources import find_files
from gpt2.errors import UserError, quoted
from gpt2.processes import map_in_order
from gpt2.tokenizer import ENDOFTEXT, Tokenizer
from gpt2.tokenizer.words import last_seam

__all__ = [
    "TokenizedDocument",
    "check_ids",
    "find_files",
    "read_chunks",
    "read_documents",
    "read_parts",
    "read_texts",
]

Tag = TypeVar("Tag")

# Characters that are tokenised at a time, more or less.
PART = 2**19
# A word that has no end after so many characters is cut, or there would not be memory enough.
LONGEST_WORD = 2**21
# White space that is held back to see whether a document is blank.
LONGEST_BLANK = 2**19
# Characters after which a chunk ends in the middle of a document: training draws no window across
# the border, which at this distance is no loss, and no chunk is too long for memory.
LONGEST_CHUNK = 2**24
# Parts that are done by this process alone, before others are started: some 16 MB.
ALONE = 32


class TokenizedDocument(NamedTuple):
    """The tokens of a document, `<|endoftext|>` last, and the name of the file it is from."""

    tokens: np.ndarray  # [tokens], of `npz.compact_type`
    source: str


class ChunkPart(NamedTuple):
    """A part of a chunk of tokens; the parts of a chunk follow each other."""

    tokens: np.ndarray  # [tokens], of `npz.compact_type`
    ends: bool  # whether it is the last of its chunk


def read_chunks(files: list[Path], tokenizer: Tokenizer, n_vocab: int, **options) -> Iterator:
    """The tokens of all files, in chunks; see `read_parts`, whose arguments it takes.

    Yields:
        Token ids below `n_vocab`, each chunk an array of `npz.compact_type`, shape [tokens].
    """
    chunk: list[np.ndarray] = []
    for tokens, ends in read_parts(files, tokenizer, n_vocab, **options):
        chunk.append(tokens)
        if ends:
            yield np.concatenate(chunk)
            chunk.clear()


def read_parts(
    files: list[Path],
    tokenizer: Tokenizer,
    n_vocab: int,
    *,
    combine: int = 50000,
    reading: ReaderSettings = UTF_8,
    legacy_endoftext: bool = False,
    workers: int = 1,
    progress: Callable[[int], object] = lambda size: None,
    notice: Callable[[str], object] = lambda sentence: None,
) -> Iterator[ChunkPart]:
    """The tokens of all files, in chunks, of which each comes in parts of bounded size.

    DocumentSet are joined until a chunk has at least `combine` characters, and cut where one has
    `LONGEST_CHUNK`. Each is closed by one `<|endoftext|>` token, if the vocabulary has it; blank
    ones are left out. With `legacy_endoftext` the chunks are those of 2019: the marker is spelled
    out as ordinary text, and stands only between joined documents and after the last ones.

    Args:
        n_vocab: tokens the model knows; a file of tokens may hold none beyond.
        reading: how files become documents.
        workers: processes that share in the work, if there is much; the tokens are the same.
        progress: called with the size in bytes of what has been read.
        notice: called with a sentence on what the user may want to know.

    Raises:
        UserError: a file cannot be read, decoded or spelled with this vocabulary.
    """
    separator = ENDOFTEXT if legacy_endoftext or tokenizer.endoftext is not None else ""
    pending = _Pending(reading)

    def parts_of_text() -> Iterator[tuple[str | np.ndarray, bool]]:
        size = given = 0  # characters of the chunk so far, and of its parts that are given out
        for item in _read_all(files, reading, n_vocab, legacy_endoftext, progress, notice):
            if isinstance(item.text, np.ndarray):
                # A chunk of its own. As in 2019 it overtakes the text that waits for more.
                if given:
                    yield pending.rest(), True
                    size = given = 0
                yield item.text, True
                continue
            size += len(item.text)
            for text in pending.add(item.text):
                given += len(text)
                too_long = given >= LONGEST_CHUNK and not legacy_endoftext
                yield text, too_long
                if too_long:
                    size, given = size - given, 0
            if item.ends:
                full = size >= combine
                if not (full and legacy_endoftext):
                    pending.add_mark(separator)
                    size += len(separator)
                if full and (given or pending.size):
                    yield pending.rest(), True
                    size = given = 0
        if given or pending.size:
            yield pending.rest(), True

    texts = parts_of_text()
    for tokens, ends in _encoded(texts, tokenizer, n_vocab, legacy_endoftext, workers):
        yield ChunkPart(tokens, ends)


def read_documents(
    files: list[Path],
    tokenizer: Tokenizer,
    n_vocab: int,
    *,
    reading: ReaderSettings = UTF_8,
    workers: int = 1,
    progress: Callable[[int], object] = lambda size: None,
    notice: Callable[[str], object] = lambda sentence: None,
) -> Iterator[TokenizedDocument]:
    """The documents of all text files, each by itself; for the arguments see `read_parts`.

    A file of tokens is cut after each `<|endoftext|>`.
    """
    separator = "" if tokenizer.endoftext is None else ENDOFTEXT

    def parts_of_text() -> Iterator[tuple[str | np.ndarray, tuple[str, bool]]]:
        pending = _Pending(reading)
        for text, source, ends in _read_all(files, reading, n_vocab, False, progress, notice):
            if isinstance(text, np.ndarray):
                for document in np.split(text, np.flatnonzero(text == tokenizer.endoftext) + 1):
                    if len(document):
                        yield document, (source, True)
                continue
            for part in pending.add(text):
                yield part, (source, False)
            if ends:
                pending.add_mark(separator)
                yield pending.rest(), (source, True)

    parts: list[np.ndarray] = []
    texts = parts_of_text()
    for tokens, (source, ends) in _encoded(texts, tokenizer, n_vocab, False, workers):
        parts.append(tokens)
        if ends:
            yield TokenizedDocument(np.concatenate(parts), source)
            parts.clear()


def read_texts(
    files: list[Path],
    *,
    tokenizer: Tokenizer | None = None,
    n_vocab: int = 0,
    reading: ReaderSettings = UTF_8,
    progress: Callable[[int], object] = lambda size: None,
    notice: Callable[[str], object] = lambda sentence: None,
) -> Iterator[str]:
    """The text of all files in parts of bounded size, none of which cuts a word in two.

    Args:
        tokenizer: with its `n_vocab`, for files of tokens, which are refused without one.
        reading, progress, notice: see `read_parts`.

    Raises:
        UserError: a file cannot be read, or holds tokens that cannot be made text again.
    """
    pending = _Pending(reading)
    for file in files:
        if file.suffix == ".npz" and tokenizer is None:
            raise UserError(f"{file} holds tokens; give the text that they were made of.")
    for item in _read_all(files, reading, n_vocab, False, progress, notice):
        is_text = isinstance(item.text, str)
        for text in [item.text] if is_text else _spelled(item.text, tokenizer):
            yield from pending.add(text)
        if item.ends:
            yield pending.rest()


def _spelled(tokens: np.ndarray, tokenizer: Tokenizer) -> Iterator[str]:
    """The text of many tokens, some at a time, though a character may lie across the border."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for start in range(0, len(tokens), PART):
        yield decoder.decode(tokenizer.decode_bytes(tokens[start : start + PART].tolist()))
    yield decoder.decode(b"", final=True)


def _read_all(
    files: list[Path],
    reading: ReaderSettings,
    n_vocab: int,
    legacy: bool,
    progress: Callable[[int], object],
    notice: Callable[[str], object],
) -> Iterator[Piece]:
    """The documents of text files in pieces, and each chunk of a file of tokens as one piece.

    Unless all is to be as in 2019, texts come without their byte order mark, and none is blank.
    """
    for file in files:
        if file.suffix == ".npz":
            for chunk in npz.read(file, n_vocab):
                yield Piece(chunk, str(file), True)
            with contextlib.suppress(OSError):
                progress(file.stat().st_size)
            continue
        pieces = read_pieces(
            file, reading, progress=progress, notice=notice, skip_binary=len(files) > 1
        )
        yield from pieces if legacy else _not_blank(pieces)


def _not_blank(pieces: Iterable[Piece]) -> Iterator[Piece]:
    held, begun = "", False  # white space that a document begins with; whether it is given out
    for piece in pieces:
        text, source, ends = piece
        if begun:
            yield piece
        else:
            held += text.removeprefix(BYTE_ORDER_MARK) if not held else text
            begun = len(held) >= LONGEST_BLANK or not (held == "" or held.isspace())
            if begun:
                yield Piece(held, source, ends)
        if begun or ends:
            held = ""
        begun = begun and not ends


class _Pending:
    """Text that waits for more, and is given out in parts when there is much."""

    def __init__(self, reading: ReaderSettings):
        self.size = 0  # characters that wait
        self._nfc = reading.normalize == "nfc"
        self._parts: list[str] = []
        self._enough = PART

    def add(self, text: str) -> Iterator[str]:
        """Add text, and take out what can be tokenised by itself already."""
        for start in range(0, len(text), PART):
            self._parts.append(text[start : start + PART])
            self.size += len(self._parts[-1])
            if self.size >= self._enough and (cut := self._cut()):
                yield cut

    def _cut(self) -> str:
        text = "".join(self._parts)
        cut = last_seam(text)
        if cut == 0 and len(text) >= LONGEST_WORD:
            cut = len(text)
        self._parts = [text[cut:]]
        self.size = len(text) - cut
        self._enough = max(PART, self.size + PART // 2)  # not to look at a long word too often
        return self._normal(text[:cut])

    def add_mark(self, mark: str) -> None:
        """Add what closes a document."""
        self._parts.append(mark)
        self.size += len(mark)

    def rest(self) -> str:
        """Take out all that is left."""
        text = self._normal("".join(self._parts))
        self._parts, self.size, self._enough = [], 0, PART
        return text

    def _normal(self, text: str) -> str:
        return unicodedata.normalize("NFC", text) if self._nfc else text


def _encoded(
    texts: Iterable[tuple[str | np.ndarray, Tag]],
    tokenizer: Tokenizer,
    n_vocab: int,
    legacy: bool,
    workers: int,
) -> Iterator[tuple[np.ndarray, Tag]]:
    """The tokens of each text, with its tag; what is an array already stays as it is."""
    waiting: deque[list[tuple[str | np.ndarray, Tag]]] = deque()

    def tasks() -> Iterator[list[str]]:
        batch: list[tuple[str | np.ndarray, Tag]] = []
        size = 0
        for pair in texts:
            batch.append(pair)
            size += len(pair[0])
            if size >= PART // 2:  # parts are cut a little short of PART
                waiting.append(batch)
                yield [text for text, _ in batch if isinstance(text, str)]
                batch, size = [], 0
        if batch:
            waiting.append(batch)
            yield [text for text, _ in batch if isinstance(text, str)]

    encode = _Encoder(tokenizer, n_vocab, legacy)
    for results in map_in_order(encode, tasks(), workers, ALONE):
        arrays = iter(results)
        for text, tag in waiting.popleft():
            yield next(arrays) if isinstance(text, str) else text, tag


@dataclass(frozen=True)
class _Encoder:
    """Makes tokens of texts, in whichever process."""

    tokenizer: Tokenizer
    n_vocab: int
    legacy: bool

    def __call__(self, texts: list[str]) -> list[np.ndarray]:
        arrays = self.tokenizer.encode_arrays(texts, legacy_endoftext=self.legacy)
        return [check_ids(ids, self.tokenizer, self.n_vocab) for ids in arrays]


def check_ids(ids: np.ndarray, tokenizer: Tokenizer, n_vocab: int) -> np.ndarray:
    """The same tokens in `npz.compact_type`, if the model knows them all.

    Raises:
        UserError: one is beyond the model's vocabulary.
    """
    last = int(ids.max(initial=0))
    if last >= n_vocab:
        raise UserError(
            f"The text {quoted(tokenizer.decode([last]))} is the token {last}, but the model's "
            f"vocabulary ends at {n_vocab - 1}: encoder.json and hparams.json do not belong "
            "together."
        )
    return ids.astype(npz.compact_type(n_vocab))
