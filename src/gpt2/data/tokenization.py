"""Tokenize text files in chunks for training, or document by document, in bounded memory."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import hashlib
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from gpt2.checks import check_fields, setting
from gpt2.data import npz
from gpt2.data.readers import BYTE_ORDER_MARK, UTF_8, Piece, ReaderSettings, read_pieces
from gpt2.data.sources import display_name, find_files
from gpt2.data.templates import chat_template
from gpt2.errors import UserError, quoted
from gpt2.parts import Part
from gpt2.processes import map_in_order
from gpt2.tokenizer import ENDOFTEXT, Tokenizer
from gpt2.tokenizer.words import last_seam

__all__ = [
    "ChunkShare",
    "TokenizationSettings",
    "TokenizedDocument",
    "check_ids",
    "find_files",
    "for_vocabulary",
    "not_empty",
    "read_chunks",
    "read_documents",
    "read_parts",
    "read_texts",
]

Item = TypeVar("Item")
Tag = TypeVar("Tag")

PART = 2**19  # characters tokenized at a time, approximately
LONGEST_WORD = 2**21  # characters after which a word is cut, to bound the memory
LONGEST_BLANK = 2**19  # leading white space held back to see whether a document is blank
# Characters after which a chunk ends within a document, so that every chunk fits into memory.
# Training draws no window across chunks, which does not matter at this distance.
LONGEST_CHUNK = 2**24
ALONE = 1  # parts (about 512 KB) for which no worker processes are started; see `map_in_order`


@dataclasses.dataclass(frozen=True)
class TokenizationSettings:
    """How text becomes chunks of tokens."""

    combine: int = setting(
        50000, "join documents into chunks of at least N characters", metavar="N", low=1
    )
    legacy_endoftext: bool = setting(
        False, "encode <|endoftext|> as ordinary text, as in 2019, instead of as one token"
    )

    def __post_init__(self) -> None:
        """Check the values; raises `UserError`."""
        check_fields(self)


class TokenizedDocument(NamedTuple):
    """The tokens of a document, `<|endoftext|>` last, and the name of its file."""

    tokens: np.ndarray  # [tokens], of `npz.compact_type`
    source: str
    completions: np.ndarray | None = None  # bool [tokens], whether each is part of a completion


def not_empty(
    items: Iterable[Item], sentence: str, counts: Callable[[Item], object] = lambda item: True
) -> Iterator[Item]:
    """Yield the items.

    Args:
        counts: whether an item has any content.

    Raises:
        UserError: none counts; says the sentence, before anything is written.
    """
    empty = True
    for item in items:
        empty = empty and not counts(item)
        yield item
    if empty:
        raise UserError(sentence)


def for_vocabulary(reading: ReaderSettings, tokenizer: Tokenizer) -> ReaderSettings:
    """Return the settings with the template of conversations that suits the vocabulary."""
    return dataclasses.replace(reading, chat_template=chat_template(tokenizer.special))


class ChunkPart(NamedTuple):
    """A part of a chunk of tokens; the parts of a chunk follow each other."""

    tokens: np.ndarray  # [tokens], of `npz.compact_type`
    ends: bool  # whether it is the last part of its chunk


class ChunkShare:
    """The chunks that one of several machines tokenizes; see `gpt2.parts`.

    Where a chunk ends depends on all text before it, so every machine reads all text. That takes a
    small fraction of the time of tokenization.

    Attributes:
        chunks: number of all chunks so far, those of other machines too.
    """

    def __init__(self, part: Part):
        """Begin without chunks."""
        self.chunks = 0
        self._part = part
        self._digest = hashlib.blake2b(digest_size=16)

    @property
    def digest(self) -> str:
        """Digest of the text of all chunks and of where they end."""
        return self._digest.hexdigest()

    def select(
        self, texts: Iterable[tuple[str | np.ndarray, bool]]
    ) -> Iterator[tuple[str | np.ndarray, bool]]:
        """Yield the texts of the chunks of this machine."""
        for text, ends in texts:
            content = (
                text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text.tobytes()
            )
            self._digest.update(f"{len(content)} {ends:d} ".encode())
            self._digest.update(content)
            if self._part.has(self.chunks):
                yield text, ends
            self.chunks += ends


def read_chunks(
    files: list[Path], tokenizer: Tokenizer, n_vocab: int, **options: Any
) -> Iterator[np.ndarray]:
    """Yield the tokens of all files in chunks, arrays of `npz.compact_type`, shape [tokens].

    Takes the arguments of `read_parts`.
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
    share: ChunkShare | None = None,
    progress: Callable[[int], object] = lambda size: None,
    notice: Callable[[str], object] = lambda sentence: None,
) -> Iterator[ChunkPart]:
    """Yield the tokens of all files in chunks, each chunk in parts of bounded size.

    Documents are joined until a chunk has at least `combine` characters; a chunk of
    `LONGEST_CHUNK` characters ends within a document. Every document ends with one `<|endoftext|>`
    token, if the vocabulary has it; blank documents are left out. With `legacy_endoftext` the
    chunks are those of 2019: `<|endoftext|>` is encoded as ordinary text, and only between joined
    documents and at the end of the last chunk.

    Args:
        files: text files and `.npz` files.
        tokenizer: encodes the text.
        n_vocab: vocabulary size of the model; `.npz` files may contain only smaller ids.
        combine: minimum number of characters of a chunk.
        reading: how files become documents.
        legacy_endoftext: see above.
        workers: number of processes, if there is much text; the tokens are the same.
        share: yield only its chunks.
        progress: called with the number of bytes read since the last call.
        notice: called with sentences that the user may want to see.

    Raises:
        UserError: a file cannot be read, decoded or encoded with this vocabulary.
    """
    separator = ENDOFTEXT if legacy_endoftext or tokenizer.endoftext is not None else ""
    reading = for_vocabulary(reading, tokenizer)
    pending = _Pending(reading)

    def parts_of_text() -> Iterator[tuple[str | np.ndarray, bool]]:
        size = given = 0  # characters of the chunk so far, and of those already yielded
        for item in _read_all(files, reading, n_vocab, legacy_endoftext, progress, notice):
            if isinstance(item.text, np.ndarray):
                # A chunk of its own. As in 2019, it comes before text that waits for more.
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

    texts = parts_of_text() if share is None else share.select(parts_of_text())
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
    """Yield the documents of all files; for the arguments see `read_parts`.

    `.npz` files are split after each `<|endoftext|>`. Prompts and completions of a template are
    tokenized separately, so that a prompt has the same tokens as when it is completed.
    """
    separator = "" if tokenizer.endoftext is None else ENDOFTEXT
    reading = for_vocabulary(reading, tokenizer)

    def parts_of_text() -> Iterator[tuple[str | np.ndarray, Piece]]:
        """Yield texts, and pieces that tell what they belong to and whether they end it."""
        pending = _Pending(reading)
        for piece in _read_all(files, reading, n_vocab, False, progress, notice):
            if isinstance(piece.text, np.ndarray):
                borders = np.flatnonzero(piece.text == tokenizer.endoftext) + 1
                for document in np.split(piece.text, borders):
                    if len(document):
                        yield document, piece._replace(text="")
                continue
            tag = piece._replace(text="")
            for part in pending.add(piece.text):
                yield part, tag._replace(ends=False)
            if piece.ends:
                pending.add_mark(separator)
            if piece.ends or piece.template:
                yield pending.rest(), tag

    parts: list[np.ndarray] = []
    completions: list[np.ndarray] = []
    for tokens, piece in _encoded(parts_of_text(), tokenizer, n_vocab, False, workers):
        parts.append(tokens)
        if piece.template:
            completions.append(np.full(len(tokens), piece.completion))
        if piece.ends:
            mask = np.concatenate(completions) if completions else None
            yield TokenizedDocument(np.concatenate(parts), piece.source, mask)
            parts.clear()
            completions.clear()


def read_texts(
    files: list[Path],
    *,
    tokenizer: Tokenizer | None = None,
    n_vocab: int = 0,
    reading: ReaderSettings = UTF_8,
    progress: Callable[[int], object] = lambda size: None,
    notice: Callable[[str], object] = lambda sentence: None,
) -> Iterator[str]:
    """Yield the text of all files in parts of bounded size that end between words.

    Args:
        files: text files and, with a tokenizer, `.npz` files.
        tokenizer, n_vocab: decode `.npz` files, which are refused without a tokenizer.
        reading, progress, notice: see `read_parts`.

    Raises:
        UserError: a file cannot be read, or contains tokens that cannot be decoded.
    """
    if tokenizer is not None:
        reading = for_vocabulary(reading, tokenizer)
    pending = _Pending(reading)
    for file in files:
        if file.suffix == ".npz" and tokenizer is None:
            raise UserError(
                f"{display_name(file)} contains tokens. Use the text that they were made from."
            )
    for item in _read_all(files, reading, n_vocab, False, progress, notice):
        if tokenizer is None or isinstance(item.text, str):
            texts: Iterable[str] = [item.text]
        else:
            texts = _decoded(item.text, tokenizer)
        for text in texts:
            yield from pending.add(text)
        if item.ends:
            yield pending.rest()


def _decoded(tokens: np.ndarray, tokenizer: Tokenizer) -> Iterator[str]:
    """Yield the text of many tokens in parts; characters may span the parts of tokens."""
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
    """Yield the documents of text files in pieces, and each chunk of an `.npz` file as one piece.

    Except in legacy mode, byte order marks are removed and blank documents are left out.
    """
    for file in files:
        if file.suffix == ".npz":
            for chunk in npz.read(file, n_vocab):
                yield Piece(chunk, display_name(file), True)
            with contextlib.suppress(OSError):
                progress(file.stat().st_size)
            continue
        pieces = read_pieces(
            file, reading, progress=progress, notice=notice, skip_binary=len(files) > 1
        )
        yield from pieces if legacy else _not_blank(pieces)


def _not_blank(pieces: Iterable[Piece]) -> Iterator[Piece]:
    held, begun = "", False  # leading white space of a document; whether it has been yielded
    for piece in pieces:
        if begun or piece.template:
            yield piece
        else:
            held += piece.text.removeprefix(BYTE_ORDER_MARK) if not held else piece.text
            begun = len(held) >= LONGEST_BLANK or not (held == "" or held.isspace())
            if begun:
                yield piece._replace(text=held)
        if begun or piece.ends:
            held = ""
        begun = begun and not piece.ends


class _Pending:
    """A buffer of text that gives out parts which can be tokenized independently."""

    def __init__(self, reading: ReaderSettings):
        self.size = 0  # characters in the buffer
        self._nfc = reading.normalize == "nfc"
        self._parts: list[str] = []
        self._enough = PART

    def add(self, text: str) -> Iterator[str]:
        """Add text, and yield parts that end at word boundaries if there is enough."""
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
        self._enough = max(PART, self.size + PART // 2)  # searches a long word only a few times
        return self._normalized(text[:cut])

    def add_mark(self, mark: str) -> None:
        """Add the text that ends a document."""
        self._parts.append(mark)
        self.size += len(mark)

    def rest(self) -> str:
        """Return the rest of the text and clear the buffer."""
        text = self._normalized("".join(self._parts))
        self._parts, self.size, self._enough = [], 0, PART
        return text

    def _normalized(self, text: str) -> str:
        return unicodedata.normalize("NFC", text) if self._nfc else text


def _encoded(
    texts: Iterable[tuple[str | np.ndarray, Tag]],
    tokenizer: Tokenizer,
    n_vocab: int,
    legacy: bool,
    workers: int,
) -> Iterator[tuple[np.ndarray, Tag]]:
    """Yield the tokens of each text with its tag; arrays of tokens are passed through."""
    waiting: deque[list[tuple[str | np.ndarray, Tag]]] = deque()

    def tasks() -> Iterator[list[str]]:
        batch: list[tuple[str | np.ndarray, Tag]] = []
        size = 0
        for pair in texts:
            batch.append(pair)
            size += len(pair[0])
            if size >= PART // 2:  # parts are a little shorter than PART
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
    """Encodes texts, in this process or in a worker."""

    tokenizer: Tokenizer
    n_vocab: int
    legacy: bool

    def __call__(self, texts: list[str]) -> list[np.ndarray]:
        arrays = self.tokenizer.encode_arrays(texts, legacy_endoftext=self.legacy)
        return [check_ids(ids, self.tokenizer, self.n_vocab) for ids in arrays]


def check_ids(ids: np.ndarray, tokenizer: Tokenizer, n_vocab: int) -> np.ndarray:
    """Return the tokens as `npz.compact_type`, if all are in the model's vocabulary.

    Raises:
        UserError: an id is not below `n_vocab`.
    """
    last = int(ids.max(initial=0))
    if last >= n_vocab:
        raise UserError(
            f"The text {quoted(tokenizer.decode([last]))} is token {last}, but the model's "
            f"vocabulary ends at {n_vocab - 1}. Use encoder.json and hparams.json of the same "
            "model."
        )
    return ids.astype(npz.compact_type(n_vocab))
