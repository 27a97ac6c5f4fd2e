"""Datasets for training: a stream of tokens, or a set of separate documents."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from gpt2.checks import check_fields, setting
from gpt2.data import readers, shards, tokenization
from gpt2.data.readers import ReaderSettings
from gpt2.data.sources import total_size
from gpt2.data.templates import Template
from gpt2.errors import UserError
from gpt2.tokenizer import Tokenizer
from gpt2.workspace import command_line

_BLOCK = 2**22  # tokens of short documents stored in one array, and tokens searched at a time


@dataclass(frozen=True)
class DatasetSettings:
    """How the training examples are made; by default, crops of a continuous text.

    Attributes:
        line_by_line: each line of the text files is an example; the flag is `lines`, of the reader.
        respect_documents: examples are documents, or crops of long ones.
        control_code_from: `filename` puts the file name before each example, as the token
            `<|name|>` if the vocabulary has it, else as a line of text. No example crosses the end
            of its document then.
        loss_on: with `completion`, the targets of prompts are masked out.
        packing: several examples share a sequence; each still attends only to itself.
    """

    line_by_line: bool = False
    respect_documents: bool = setting(
        False, "keep documents separate; <|endoftext|> and the end of a file end a document"
    )
    control_code_from: str | None = setting(
        None,
        "put the name of its file before each example, as a control code for prompts",
        choices=("filename",),
    )
    loss_on: str = setting(
        "all",
        "tokens that count in the loss: all, or only the completions of prompts and messages",
        choices=("all", "completion"),
    )
    packing: bool = setting(
        True,
        "pack short documents and lines into full sequences; --no_packing pads each one instead",
    )

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: a value is invalid, or two settings contradict each other.
        """
        check_fields(self)
        if self.line_by_line and self.respect_documents:
            raise UserError(
                "lines cannot be combined with respect_documents, as each line is a document. Omit "
                "respect_documents."
            )

    @property
    def apart(self) -> bool:
        """Whether documents are kept separate."""
        return (
            self.line_by_line
            or self.respect_documents
            or self.control_code_from is not None
            or self.loss_on == "completion"
        )

    @property
    def packed(self) -> bool:
        """Whether examples share sequences; continuous text has none to pack."""
        return self.apart and self.packing

    def check_vocabulary(self, endoftext: int | None, legacy_endoftext: bool = False) -> None:
        """Check that the vocabulary has a token that ends a document, if one is needed.

        Args:
            endoftext: the id of `<|endoftext|>`; None if the vocabulary lacks it.
            legacy_endoftext: whether `<|endoftext|>` is encoded as ordinary text.

        Raises:
            UserError: it does not.
        """
        if self.apart and (legacy_endoftext or endoftext is None):
            reason = (
                "legacy_endoftext encodes it as text. Omit legacy_endoftext"
                if legacy_endoftext
                else "the vocabulary of this model lacks it. Train on continuous text instead"
            )
            raise UserError(
                f"Separate documents and lines end with the token <|endoftext|>, but {reason}."
            )


@dataclass(frozen=True)
class TokenStream:
    """Continuous text, in chunks.

    Attributes:
        chunks: token ids, each an integer array of shape [tokens], in memory or mapped from disk.
    """

    chunks: list[np.ndarray]

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return sum(map(len, self.chunks))

    def split(self, share: float) -> tuple[TokenStream, TokenStream]:
        """Return a training set and a validation set, which is the last `share` of the tokens.

        Args:
            share: fraction to hold out, between 0 and 1.

        Raises:
            UserError: the fraction is out of range, or a part would have fewer than two tokens.
        """
        border = self.tokens - _held_out(self.tokens, share)
        parts: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        begin = 0
        for chunk in self.chunks:
            cut = min(max(border - begin, 0), len(chunk))
            for part, piece in zip(parts, (chunk[:cut], chunk[cut:]), strict=True):
                if len(piece):
                    part.append(piece)
            begin += len(chunk)
        return TokenStream(parts[0]), TokenStream(parts[1])


@dataclass(frozen=True)
class DocumentSet:
    """Separate documents, each a part of a chunk.

    Attributes:
        chunks: as in `TokenStream`.
        places: chunk index, start and end of each document, int64 [documents, 3].
        sources: names of the files.
        source: index in `sources` of each document's file, int32 [documents].
        codes: control code of each file, put before its examples; integers of shape [tokens].
        endoftext: id of the token before the first document and after each, or None.
        masks: for each chunk, bool [tokens]: whether the token counts in the loss as a target; None
            if all do.
    """

    chunks: list[np.ndarray]
    places: np.ndarray
    sources: list[str]
    source: np.ndarray
    codes: list[np.ndarray]
    endoftext: int | None
    masks: list[np.ndarray] | None = None

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each document, int64 [documents]."""
        return self.places[:, 2] - self.places[:, 1]

    @property
    def tokens(self) -> int:
        """Number of tokens, control codes not counted."""
        return int(self.lengths.sum())

    def split(self, share: float) -> tuple[DocumentSet, DocumentSet]:
        """Return a training set and a validation set; see `TokenStream.split`.

        Holds out the last documents, about `share` of the tokens. With control codes, these are the
        last documents of each file, so that both sets have every code. A file (without codes, a
        dataset) of a single document is split within it.
        """
        _held_out(self.tokens, share)
        coded = any(map(len, self.codes))
        source = self.source if coded else np.zeros_like(self.source)
        order = np.argsort(source, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(source[order])) + 1)
        training, validation = [], []
        for group in groups:
            places, numbers = self.places[group], self.source[group]
            held_out = round(int((places[:, 2] - places[:, 1]).sum()) * share)
            if len(group) == 1:
                head, tail = places.copy(), places.copy()
                head[0, 2] = tail[0, 1] = places[0, 2] - held_out
                training.append((head, numbers))
                validation.append((tail, numbers))
            else:
                # The nearest border between documents, with at least one on each side.
                before = np.cumsum((places[:, 2] - places[:, 1])[::-1])[::-1]
                cut = 1 + int(np.argmin(np.abs(before[1:] - held_out)))
                training.append((places[:cut], numbers[:cut]))
                validation.append((places[cut:], numbers[cut:]))
        parts = self._with(training), self._with(validation)
        for part in parts:
            if not (part.lengths >= 2).any():
                raise _too_little(self.tokens, share)
        return parts

    def _with(self, parts: list[tuple[np.ndarray, np.ndarray]]) -> DocumentSet:
        places, source = map(np.concatenate, zip(*parts, strict=True))
        return dataclasses.replace(self, places=places, source=source)


def _held_out(tokens: int, share: float) -> int:
    if not 0 < share < 1:
        raise UserError(f"val_split must be a number between 0 and 1, not {share!r}.")
    held_out = round(tokens * share)
    if not 2 <= held_out <= tokens - 2:
        raise _too_little(tokens, share)
    return held_out


def _too_little(tokens: int, share: float) -> UserError:
    return UserError(
        f"The dataset of {tokens} tokens is too small to hold out a fraction of {share}. Validate "
        "on another text with --val_dataset."
    )


def documents_in(chunks: list[np.ndarray], endoftext: int, source: str = "") -> DocumentSet:
    """Return the documents in chunks, split after each `<|endoftext|>`; tokens are not copied."""
    places = [np.zeros((0, 3), np.int64)]
    for number, chunk in enumerate(chunks):
        found = [
            begin + np.flatnonzero(chunk[begin : begin + _BLOCK] == endoftext)
            for begin in range(0, len(chunk), _BLOCK)
        ]
        borders = np.unique(np.concatenate([[0], *(part + 1 for part in found), [len(chunk)]]))
        borders = borders.astype(np.int64)
        count = len(borders) - 1
        places.append(np.stack([np.full(count, number), borders[:-1], borders[1:]], axis=1))
    table = np.concatenate(places)
    none = np.zeros(0, np.int32)
    source_numbers = np.zeros(len(table), np.int32)
    return DocumentSet(chunks, table, [source], source_numbers, [none], endoftext)


def collect(
    documents: Iterable[tuple[np.ndarray, str] | tokenization.TokenizedDocument],
    code: Tokenizer | None = None,
    endoftext: int | None = None,
    masked: bool = False,
) -> DocumentSet:
    """Return the document set of tokenized documents.

    Args:
        documents: tokens and file name of each, as from `tokenization.read_documents`.
        code: tokenizer for the control codes of the files; None for no codes.
        endoftext: see `DocumentSet`.
        masked: whether only completions count in the loss.

    Raises:
        UserError: a document has no completion, although only these count.
    """
    chunks: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    waiting: list[np.ndarray] = []
    waiting_masks: list[np.ndarray] = []
    size = 0
    places: list[tuple[int, int, int]] = []
    numbers: dict[str, int] = {}
    source: list[int] = []
    for tokens, name, *mask in documents:
        if masked:
            if not mask or mask[0] is None:
                raise _no_completions(name)
            waiting_masks.append(mask[0])
        places.append((len(chunks), size, size + len(tokens)))
        source.append(numbers.setdefault(name, len(numbers)))
        waiting.append(tokens)
        size += len(tokens)
        if size >= _BLOCK:
            chunks.append(np.concatenate(waiting))
            masks += [np.concatenate(waiting_masks)] if masked else []
            waiting, waiting_masks, size = [], [], 0
    if waiting:
        chunks.append(np.concatenate(waiting))
        masks += [np.concatenate(waiting_masks)] if masked else []
    codes = [np.array([] if code is None else control_code(name, code), int) for name in numbers]
    table = np.array(places, np.int64).reshape(-1, 3)
    source_numbers = np.array(source, np.int32)
    return DocumentSet(
        chunks, table, list(numbers), source_numbers, codes, endoftext, masks if masked else None
    )


def _no_completions(name: str) -> UserError:
    return UserError(
        f"{name} has no completions, which loss_on completion needs. Use records with prompt and "
        "completion, with messages, or with a template; or omit loss_on."
    )


def control_code(source: str, tokenizer: Tokenizer) -> list[int]:
    """Return the control code of a file: for `poems.txt`, `<|poems|>` or else the line "poems".

    Prompts that start with it give samples of that kind.
    """
    stem = os.fsencode(PurePath(source).stem).decode("utf-8", "replace")  # names may be any bytes
    token = tokenizer.vocabulary.get(f"<|{stem}|>")
    return tokenizer.encode(f"{stem}\n") if token is None else [token]


def read(
    path: str,
    settings: DatasetSettings,
    tokenizer: Tokenizer,
    n_vocab: int,
    *,
    legacy_endoftext: bool = False,
    combine: int = 50000,
    progress: Callable[[int], object] = lambda size: None,
    **options: Any,
) -> TokenStream | DocumentSet:
    """Return the dataset of text files, `.npz` files, or a folder of shards (left on disk).

    Args:
        path: as for `tokenization.find_files`, or a folder of shards.
        settings: whether documents or lines are kept apart.
        tokenizer: encodes the text.
        n_vocab: vocabulary size of the model.
        legacy_endoftext, combine: for continuous text; see `tokenization.read_chunks`.
        progress: called with the number of bytes read since the last call.
        options: others that `tokenization.read_chunks` and `tokenization.read_documents` share.

    Raises:
        UserError: the dataset cannot be read, not with these settings, or only once.
    """
    settings.check_vocabulary(tokenizer.endoftext, legacy_endoftext)
    encoded = shards.is_shards(Path(path))
    files = [] if encoded else tokenization.find_files(path)
    if total_size(files) is None:
        raise UserError(
            f"{path} can be read only once, but resuming a run needs the text again. Encode it "
            f"first with: {command_line('encode')} {path} OUT.npz"
        )
    if encoded or any(file.suffix == ".npz" for file in files):
        if settings.control_code_from:
            raise UserError(
                f"{path} contains tokens without file names, which control codes need. Train on "
                "the text itself."
            )
        if settings.loss_on == "completion":
            raise UserError(
                f"{path} contains tokens, which do not tell prompts from completions as loss_on "
                "completion needs. Train on the text itself (.jsonl, .csv), or omit loss_on."
            )
        if settings.line_by_line:
            raise UserError(
                f"{path} contains tokens, which have no lines. Train on the text itself, or encode "
                f"it with {command_line('encode')} --lines and train with --respect_documents "
                "instead of --lines."
            )
    if encoded:
        chunks = shards.read(Path(path), n_vocab, progress)
        if settings.apart and tokenizer.endoftext is not None:  # which `settings` has checked
            return documents_in(chunks, tokenizer.endoftext, path)
        return TokenStream(chunks)
    options["progress"] = progress
    reading = options.get("reading", readers.UTF_8)
    template = find_template(path, reading, tokenizer)
    if template is None and settings.loss_on == "completion":
        raise _no_completions(path)
    if template is not None and not settings.apart:
        settings = dataclasses.replace(settings, respect_documents=True)
        settings.check_vocabulary(tokenizer.endoftext, legacy_endoftext)
    if not settings.apart:
        options |= {"legacy_endoftext": legacy_endoftext, "combine": combine}
        return TokenStream(list(tokenization.read_chunks(files, tokenizer, n_vocab, **options)))
    if settings.line_by_line:
        options["reading"] = dataclasses.replace(reading, lines=True)
    documents: Iterator = tokenization.read_documents(files, tokenizer, n_vocab, **options)
    code = tokenizer if settings.control_code_from else None
    return collect(documents, code, tokenizer.endoftext, settings.loss_on == "completion")


def find_template(path: str, reading: ReaderSettings, tokenizer: Tokenizer) -> Template | None:
    """Return the template that the examples of a dataset are made with, None if there is none.

    Args:
        path: as for `read`.
        reading: how files become documents.
        tokenizer: decides the template of conversations; see `tokenization.for_vocabulary`.
    """
    if shards.is_shards(Path(path)):
        return None
    files = (file for file in tokenization.find_files(path) if file.suffix != ".npz")
    return readers.find_template(files, tokenization.for_vocabulary(reading, tokenizer))
