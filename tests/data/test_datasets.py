"""Documents and lines are found, kept apart, given codes and held out as promised."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gpt2.data import datasets, npz, shards, tokenization
from gpt2.data.datasets import DatasetSettings, DocumentSet, TokenStream, collect, documents_in
from gpt2.data.samplers import (
    PADDING,
    DocumentSampler,
    StreamSampler,
    make_sampler,
    make_validation_sampler,
)
from gpt2.data.sources import find_files, total_size
from gpt2.errors import UserError
from gpt2.tokenizer import Tokenizer
from tests.data.conftest import rows_of, whole_chunks

END = 256
_ = PADDING


def arrays(*chunks: list[int]) -> list[np.ndarray]:
    return [np.array(chunk, np.uint16) for chunk in chunks]


def as_lists(documents: DocumentSet) -> list[list[int]]:
    return [
        documents.chunks[chunk][begin:end].tolist()
        for chunk, begin, end in documents.places.tolist()
    ]


def documents_of(*documents: list[int]) -> DocumentSet:
    return collect((np.array(document, np.uint16), "file.txt") for document in documents)


def epoch(sampler: DocumentSampler, number: int = 0) -> list[list[int]]:
    count = sampler.steps_per_epoch(1)
    return [rows_of(sampler.batch(number * count + at, 1))[0].tolist() for at in range(count)]


# --- settings ---


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"line_by_line": True, "respect_documents": True}, "Omit respect_documents"),
        ({"control_code_from": "title"}, "control_code_from must be .*filename, not 'title'"),
    ],
)
def test_settings_without_sense_are_refused(flags: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        DatasetSettings(**flags)


def test_documents_need_the_token_that_ends_them() -> None:
    for settings in (
        DatasetSettings(line_by_line=True),
        DatasetSettings(control_code_from="filename"),
    ):
        with pytest.raises(UserError, match=r"<\|endoftext\|>.*vocabulary"):
            settings.check_vocabulary(None)
        with pytest.raises(UserError, match=r"<\|endoftext\|>.*legacy_endoftext"):
            settings.check_vocabulary(END, legacy_endoftext=True)
        settings.check_vocabulary(END)
    DatasetSettings().check_vocabulary(None, legacy_endoftext=True)


# --- documents ---


@pytest.mark.parametrize("block", [1, 2, 1000])
def test_chunks_are_cut_after_each_endoftext(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "_BLOCK", block)
    chunks = arrays([1, 2, 0, 3, 0], [], [4, 5], [0, 0, 6])
    documents = documents_in(chunks, endoftext=0)
    assert as_lists(documents) == [[1, 2, 0], [3, 0], [4, 5], [0], [0], [6]]
    assert documents.tokens == 10


@pytest.mark.parametrize("block", [1, 4, 1000])
def test_documents_are_collected_with_their_files(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "_BLOCK", block)
    given = [([1, 2, 0], "b"), ([3, 0], "a"), ([4, 5, 6, 0], "b")]
    documents = collect((np.array(tokens, np.uint16), name) for tokens, name in given)
    assert as_lists(documents) == [tokens for tokens, _ in given]
    assert [documents.sources[number] for number in documents.source] == ["b", "a", "b"]


def test_short_documents_are_padded_and_seen_once_in_each_epoch() -> None:
    documents = documents_of([1, 2, 3, 0], [4, 0], [0], [5, 6, 0])
    sampler = DocumentSampler(documents, 1024, seed=4)
    assert sampler.window == 3
    expected = [[1, 2, 3, 0], [4, 0, _, _], [5, 6, 0, _]]  # a lone end predicts nothing
    epochs = [epoch(sampler, number) for number in range(20)]
    assert all(sorted(rows) == sorted(expected) for rows in epochs)
    assert len(set(map(str, epochs))) == 6  # every order of three
    assert sampler.total_size == 9
    assert [sampler.steps_per_epoch(size) for size in (1, 2, 3, 4)] == [3, 2, 1, 1]


def test_a_batch_may_lie_in_several_epochs() -> None:
    sampler = DocumentSampler(documents_of([1, 0], [2, 0], [3, 0]), 8, seed=4)
    rows = [row for number in range(3) for row in epoch(sampler, number)]
    assert rows_of(sampler.batch(0, 9)).tolist() == rows
    assert rows_of(sampler.batch(1, 4)).tolist() == rows[4:8]


def test_long_documents_are_cut_into_windows_that_predict_every_token() -> None:
    # Nine tokens to predict, four to a window: three windows, with three predictions to spare.
    document = [*range(1, 10), 0]
    sampler = DocumentSampler(documents_of(document), 4, seed=0)
    allowed = set()
    for shift in range(4):
        starts = [min(max(4 * window - shift, 0), 5) for window in range(3)]
        allowed.add(tuple(sorted(tuple(document[start : start + 5]) for start in starts)))
    seen = set()
    for number in range(50):
        rows = epoch(sampler, number)
        assert {token for row in rows for token in row[1:]} == set(document[1:])
        seen.add(tuple(sorted(map(tuple, rows))))
    assert seen == allowed


def test_windows_of_very_long_documents_begin_anywhere() -> None:
    sampler = DocumentSampler(documents_of(list(range(1, 82))), 10, seed=0)  # 8 times 10 + 1
    assert sampler.steps_per_epoch(1) == 9
    starts = Counter(row[0] for number in range(300) for row in epoch(sampler, number))
    assert sorted(starts) == list(range(1, 72))


def test_every_token_is_about_equally_likely() -> None:
    seed = 6
    print("seed", seed)
    lengths = [2, 5, 11, 12, 30, 31, 200]
    borders = np.cumsum([0, *lengths])
    stretches = itertools.pairwise(borders.tolist())
    sampler = DocumentSampler(documents_of(*(list(range(*pair)) for pair in stretches)), 10, seed)
    counts = np.zeros(borders[-1])
    epochs = 200
    for number in range(epochs):
        for row in epoch(sampler, number):
            counts[[token for token in row[1:] if token != PADDING]] += 1
    assert (counts[borders[:-1]] == 0).all()  # the first of a document has nothing before it
    counts[borders[:-1]] = epochs
    assert (counts >= epochs).all()  # at least once in each
    assert (counts <= 2 * epochs).all()
    assert counts[borders[-2] :].mean() < 1.125 * epochs  # overlaps cost little in long documents


def test_no_row_holds_tokens_of_two_documents() -> None:
    seed = 3
    print("seed", seed)
    random = np.random.default_rng(seed)
    chunk = random.integers(1, 50, size=3000)
    chunk[random.random(3000) < 0.03] = 0
    sampler = DocumentSampler(documents_in([chunk], endoftext=0), 20, seed)
    for row in rows_of(sampler.batch(0, 500)):
        example = row[row != PADDING]
        assert (example[1:-1] != 0).all()
        assert (row[len(example) :] == PADDING).all()


def test_a_batch_of_documents_depends_on_seed_and_number_alone() -> None:
    documents = documents_of(*([number, number + 1, 0] for number in range(1, 90)))
    sampler, other = (DocumentSampler(documents, 10, seed=5) for _ in range(2))
    expected = [rows_of(other.batch(number, 4)).tolist() for number in range(60)]
    for number in (59, 0, 3, 3, 22, 1):
        sampler.token(number)
        assert rows_of(sampler.batch(number, 4)).tolist() == expected[number]
    assert rows_of(DocumentSampler(documents, 10, seed=6).batch(0, 4)).tolist() != expected[0]


def test_rows_of_documents_are_described() -> None:
    documents = collect([(np.array([1, 2, 0]), "a.txt"), (np.array([3, 0]), "b.txt")])
    sampler = DocumentSampler(documents, 8, seed=0)
    words = dict(
        zip(map(tuple, rows_of(sampler.batch(0, 2)).tolist()), sampler.describe(0, 2), strict=True)
    )
    assert words == {
        (1, 2, 0): "a.txt, document 0 (tokens 0 to 2 of it, 0 to 2 of chunk 0)",
        (3, 0, _): "b.txt, document 1 (tokens 0 to 1 of it, 3 to 4 of chunk 0)",
    }


def test_samples_begin_with_what_documents_begin_with() -> None:
    given = [(np.array(tokens), "a.txt") for tokens in ([1, 2, 0], [9], [3, 0])]
    sampler = DocumentSampler(collect(given), 8, seed=3)
    counts = Counter(sampler.token(number) for number in range(500))
    assert sorted(counts) == [1, 3]  # one token alone is no example
    sampler = DocumentSampler(collect(given, endoftext=0), 8, seed=3)
    assert {sampler.token(number) for number in range(500)} == {0}


def test_the_end_of_text_stands_in_front_of_a_document_but_not_within_it() -> None:
    given = [(np.array(tokens), "a.txt") for tokens in ([1, 2, 0], [3, 4, 5, 6, 7, 8, 0])]
    sampler = DocumentSampler(collect(given, endoftext=0), 4, seed=1)
    assert sampler.window == 4
    rows = {tuple(row[row != PADDING].tolist()) for row in rows_of(sampler.batch(0, 200))}
    assert (0, 1, 2, 0) in rows
    # Of 0 3 4 5 6 7 8 0, two windows of five cover all; the second one's begin moves.
    long = {row for row in rows if row != (0, 1, 2, 0)}
    assert long <= {(0, 3, 4, 5, 6), (3, 4, 5, 6, 7), (4, 5, 6, 7, 8), (5, 6, 7, 8, 0)}
    assert (0, 3, 4, 5, 6) in long


@pytest.mark.parametrize("documents", [[], [[0]], [[1], [2]]], ids=str)
def test_documents_with_nothing_to_predict_are_no_dataset(documents: list[list[int]]) -> None:
    with pytest.raises(UserError, match=r"dataset is empty"):
        DocumentSampler(documents_of(*documents), 10, seed=0)


# --- control codes ---


def test_a_code_stands_in_front_of_every_window(bytes_and_endoftext: Tokenizer) -> None:
    vocabulary = bytes_and_endoftext.vocabulary | {"<|poem|>": 257}
    tokenizer = Tokenizer(vocabulary, [])
    given = [
        (np.frombuffer(b"roses", np.uint8), "data/poem.txt"),
        (np.frombuffer(b"abcdefgh", np.uint8), "data/ab.txt"),
    ]
    sampler = DocumentSampler(collect(given, tokenizer), 6, seed=0)
    assert sampler.window == 6
    rows = sorted(epoch(sampler))
    poem = [257, *b"roses", _]
    # Four tokens beside the code "ab\n": two windows, which predict all eight.
    assert rows == [[*b"ab\nabcd"], [*b"ab\nefgh"], poem]
    assert {sampler.token(number) for number in range(50)} == {257, ord("a")}


def test_a_code_longer_than_half_of_the_window_is_refused(bytes_and_endoftext: Tokenizer) -> None:
    documents = collect([(np.array([1, 0]), "x/long.txt")], bytes_and_endoftext)
    with pytest.raises(UserError, match=r"x/long.txt has 5 tokens, more than half"):
        DocumentSampler(documents, 8, seed=0)
    DocumentSampler(documents, 10, seed=0)


# --- holding out ---


def test_the_tail_of_a_text_is_held_out() -> None:
    training, validation = TokenStream(arrays([0, 1, 2, 3, 4, 5], [6, 7], [8, 9])).split(0.3)
    assert [chunk.tolist() for chunk in training.chunks] == [[0, 1, 2, 3, 4, 5], [6]]
    assert [chunk.tolist() for chunk in validation.chunks] == [[7], [8, 9]]


def test_what_is_held_out_is_never_trained_on_and_validated_in_full() -> None:
    training, validation = TokenStream(arrays(list(range(60)), list(range(60, 100)))).split(0.25)
    rows = rows_of(make_sampler(training, 8, seed=0).batch(0, 3000))
    assert set(rows.ravel().tolist()) == set(range(75))
    sampler = make_validation_sampler(validation, 8, seed=1)
    count = sampler.steps_per_epoch(2)
    assert count == 2  # 24 tokens to predict in windows of eight
    batches = [rows_of(sampler.batch(number, 2)).tolist() for number in range(count)]
    seen = {token for batch in batches for row in batch for token in row}
    assert seen == set(range(75, 100))
    again = make_validation_sampler(validation, 8, seed=1)
    assert [rows_of(again.batch(number, 2)).tolist() for number in range(count)] == batches


def test_whole_documents_are_held_out() -> None:
    documents = documents_of([1, 2, 0], [3, 4, 5, 0], [6, 0], [7, 8, 0])
    for share, kept in ((0.2, 3), (0.25, 3), (0.4, 2), (0.5, 2), (0.7, 1), (0.8, 1)):
        training, validation = documents.split(share)
        assert as_lists(training) == as_lists(documents)[:kept]
        assert as_lists(validation) == as_lists(documents)[kept:]


def test_a_lone_document_is_cut() -> None:
    training, validation = documents_of([1, 2, 3, 4, 5, 6, 7, 8, 9, 0]).split(0.2)
    assert as_lists(training) == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert as_lists(validation) == [[9, 0]]


def test_both_parts_know_every_control_code(bytes_and_endoftext: Tokenizer) -> None:
    names = ["a", "b", "a", "a", "b", "c"]
    given = [(np.array([10 * at, 10 * at + 1, END]), name) for at, name in enumerate(names)]
    training, validation = collect(given, bytes_and_endoftext).split(0.34)
    assert as_lists(training) == [[0, 1, END], [20, 21, END], [10, 11, END], [50, 51]]
    assert as_lists(validation) == [[30, 31, END], [40, 41, END], [END]]
    for part in (training, validation):
        assert {part.sources[number] for number in part.source} == {"a", "b", "c"}


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 3, float("nan")])
def test_a_share_is_between_0_and_1(share: float) -> None:
    for data in (TokenStream(arrays(list(range(100)))), documents_of([1, 2, 0], [3, 4, 0])):
        with pytest.raises(UserError, match="val_split must be a number between 0 and 1"):
            data.split(share)


@pytest.mark.parametrize(("tokens", "share"), [(3, 0.5), (10, 0.1), (10, 0.9), (0, 0.5)])
def test_too_little_to_hold_out_is_told(tokens: int, share: float) -> None:
    for data in (TokenStream(arrays(list(range(tokens)))), documents_of(list(range(tokens)))):
        with pytest.raises(UserError, match=r"too small to hold out.*--val_dataset"):
            data.split(share)


# --- reading ---


def test_encoded_text_is_read_from_either_kind(
    tmp_path: Path, bytes_and_endoftext: Tokenizer
) -> None:
    chunks = arrays([1, 2, END, 3, END], [4, 5, END])
    npz.write_parts(tmp_path / "tokens.npz", whole_chunks(chunks))
    shards.write_parts(tmp_path / "tokens", whole_chunks(chunks), 257)
    for name in ("tokens.npz", "tokens"):
        data = datasets.read(str(tmp_path / name), DatasetSettings(), bytes_and_endoftext, 257)
        assert [chunk.tolist() for chunk in data.chunks] == [chunk.tolist() for chunk in chunks]
        assert isinstance(make_sampler(data, 8, 0), StreamSampler)
    settings = DatasetSettings(respect_documents=True)
    data = datasets.read(str(tmp_path / "tokens"), settings, bytes_and_endoftext, 257)
    assert as_lists(data) == [[1, 2, END], [3, END], [4, 5, END]]
    assert not data.chunks[0].flags.owndata
    assert isinstance(make_sampler(data, 8, 0), DocumentSampler)


@pytest.mark.parametrize("name", ["text.txt", "tokens.npz", "tokens"])
@pytest.mark.parametrize("settings", [DatasetSettings(), DatasetSettings(respect_documents=True)])
def test_reading_tells_all_bytes_there_are(
    tmp_path: Path, bytes_and_endoftext: Tokenizer, name: str, settings: DatasetSettings
) -> None:
    (tmp_path / "text.txt").write_text("One text, and one more.")
    npz.write_parts(tmp_path / "tokens.npz", whole_chunks(arrays([1, 2, END])))
    shards.write_parts(tmp_path / "tokens", whole_chunks(arrays([1, 2, END], [3, END])), 257)
    path, told = str(tmp_path / name), []
    datasets.read(path, settings, bytes_and_endoftext, 257, progress=told.append)
    assert sum(told) == total_size(find_files(path))


def test_what_can_be_read_only_once_is_refused(
    tmp_path: Path, bytes_and_endoftext: Tokenizer
) -> None:
    names = ["-"]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        names.append(str(tmp_path / "pipe"))
    for name in names:
        with pytest.raises(UserError, match=rf"^{name} can be read only once.*encode.py {name} "):
            datasets.read(name, DatasetSettings(), bytes_and_endoftext, 257)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (DatasetSettings(control_code_from="filename"), "without file names"),
        (DatasetSettings(line_by_line=True), "tokens, which have no lines.*--respect_documents"),
    ],
)
def test_tokens_have_neither_names_nor_lines(
    tmp_path: Path, bytes_and_endoftext: Tokenizer, settings: DatasetSettings, sentence: str
) -> None:
    npz.write_parts(tmp_path / "tokens.npz", whole_chunks(arrays([1, END])))
    shards.write_parts(tmp_path / "tokens", whole_chunks(arrays([1, END])), 257)
    for name in ("tokens.npz", "tokens"):
        with pytest.raises(UserError, match=sentence):
            datasets.read(str(tmp_path / name), settings, bytes_and_endoftext, 257)


needs_documents = pytest.mark.skipif(
    not hasattr(tokenization, "read_documents"),
    reason="texts are not yet read document by document",
)


@needs_documents
def test_files_are_read_by_document_and_by_line(
    tmp_path: Path, bytes_and_endoftext: Tokenizer
) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b.txt").write_text("three")
    read = {
        settings: datasets.read(str(tmp_path), settings, bytes_and_endoftext, 257)
        for settings in (
            DatasetSettings(respect_documents=True),
            DatasetSettings(line_by_line=True),
            DatasetSettings(line_by_line=True, control_code_from="filename"),
        )
    }
    whole, lines, coded = read.values()
    assert as_lists(whole) == [[*b"one\ntwo\n", END], [*b"three", END]]
    texts = [bytes(line[:-1]).strip() for line in as_lists(lines)]
    assert texts == [b"one", b"two", b"three"]
    assert all(line[-1] == END for line in as_lists(lines))
    assert [coded.codes[number].tolist() for number in coded.source] == [
        [*b"a\n"],
        [*b"a\n"],
        [*b"b\n"],
    ]


def test_an_empty_path_is_told_as_one() -> None:
    with pytest.raises(UserError, match=r"^An empty path is not a file"):
        find_files("")
