"""Text files become the chunks they should: those of 2019, or documents closed by one token."""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path

import numpy as np
import pytest

from gpt2.data import npz
from gpt2.data.tokenization import find_files, read_chunks
from gpt2.errors import UserError
from gpt2.tokenizer import Tokenizer

MARK = "<|endoftext|>"
END = 256  # its id in `bytes_and_endoftext`


def chunks_of_2019(contents: list[str | list[list[int]]], combine: int) -> list[list[int]]:
    """What the encoder of 2019 made of a list of files, with one id for each byte of text.

    A text is a string, an `.npz` file a list of chunks. Written apart from ours: the texts are
    first divided into groups, where ours lets one string grow.
    """
    groups: list[list[tuple[int, str]]] = [[]]
    for place, content in enumerate(contents):
        if isinstance(content, str):
            groups[-1].append((place, content))
            if len(MARK.join(text for _, text in groups[-1])) >= combine:
                groups.append([])
    *full, rest = groups

    chunks = []  # with the place of the file that completed each
    for group in full:
        chunks.append((group[-1][0], MARK.join(text for _, text in group)))
    chunks.append((len(contents), "".join(text + MARK for _, text in rest)))
    chunks += [
        (place, chunk)
        for place, content in enumerate(contents)
        if isinstance(content, list)
        for chunk in content
    ]
    chunks.sort(key=lambda pair: pair[0])
    ids = [list(c.encode("utf-8")) if isinstance(c, str) else c for _, c in chunks]
    return [chunk for chunk in ids if chunk]


def write_files(folder: Path, contents: list[str | list[list[int]]]) -> list[Path]:
    """The files of the contents, in their order."""
    paths = []
    for number, content in enumerate(contents):
        if isinstance(content, str):
            path = folder / f"{number:03}.txt"
            path.write_text(content, encoding="utf-8", newline="")
        else:
            path = folder / f"{number:03}.npz"
            np.savez_compressed(path, *[np.array(chunk, np.int64) for chunk in content])
        paths.append(path)
    return paths


def as_lists(chunks) -> list[list[int]]:
    return [chunk.tolist() for chunk in chunks]


MIXED: list[str | list[list[int]]] = [
    "a",
    "bc\n",
    "",
    [[7, 8], [9]],
    "naïve · 日本",
    "x" * 300,
    [[1] * 5],
    "",
    "end",
    "ing",
]


# 13 is the length of the marker, 300 that of the long text, 400 more than all together.
@pytest.mark.parametrize("combine", [0, 1, 2, 13, 14, 15, 16, 17, 31, 299, 300, 301, 313, 314, 400])
def test_legacy_chunks_are_those_of_2019(
    tmp_path: Path, bytes_and_endoftext: Tokenizer, combine: int
) -> None:
    files = write_files(tmp_path, MIXED)
    chunks = read_chunks(files, bytes_and_endoftext, 257, combine=combine, legacy_endoftext=True)
    assert as_lists(chunks) == chunks_of_2019(MIXED, combine)


def test_legacy_chunks_of_random_files_are_those_of_2019(
    tmp_path: Path, bytes_and_endoftext: Tokenizer
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    generator = random.Random(seed)
    for trial in range(30):
        contents: list[str | list[list[int]]] = []
        for _ in range(generator.randrange(1, 40)):
            if generator.random() < 0.15:
                contents.append([[generator.randrange(257)] * generator.randrange(1, 4)])
            else:
                contents.append("é\n x"[: generator.randrange(5)] * generator.choice([1, 2, 30]))
        folder = tmp_path / str(trial)
        folder.mkdir()
        files = write_files(folder, contents)
        combine = generator.choice([1, 10, 14, 40, 100, 1000])
        chunks = read_chunks(
            files, bytes_and_endoftext, 257, combine=combine, legacy_endoftext=True
        )
        assert as_lists(chunks) == chunks_of_2019(contents, combine), combine


def test_the_reference_of_2019_by_hand() -> None:
    a, b, mark = ord("a"), ord("b"), list(MARK.encode())
    assert chunks_of_2019(["a", "b"], 100) == [[a, *mark, b, *mark]]
    assert chunks_of_2019(["a", "b"], 15) == [[a, *mark, b]]  # 15 characters: full, no marker
    assert chunks_of_2019(["a", [[5], [6]], "b"], 1) == [[a], [5], [6], [b]]
    assert chunks_of_2019(["a", [[5]], "b"], 9) == [[5], [a, *mark, b]]
    assert chunks_of_2019([""], 100) == [mark]


def test_legacy_marker_has_the_ids_that_gpt2_made_of_it(shared_data: Path, tmp_path: Path) -> None:
    # Recomputed from OpenAI's files: seven tokens, the first one merged with a full stop before it.
    tokenizer = Tokenizer.load(shared_data / "gpt2")
    files = write_files(tmp_path, ["Hello", "Hello."])
    [chunk] = as_lists(read_chunks(files, tokenizer, 50257, legacy_endoftext=True))
    marker = [91, 437, 1659, 5239, 91, 29]
    assert tokenizer.decode(chunk) == "Hello<|endoftext|>Hello.<|endoftext|>"
    assert chunk[:8] == [15496, 27, *marker]
    assert chunk[-7:] == [29847, *marker]


def test_gpt2s_own_marker_closes_each_document(shared_data: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(shared_data / "gpt2")
    files = write_files(tmp_path, ["Hello world", "Hello"])
    [chunk] = read_chunks(files, tokenizer, 50257)
    assert chunk.tolist() == [15496, 995, 50256, 15496, 50256]
    assert chunk.dtype == np.uint16


@pytest.mark.parametrize("combine", [1, 10, 15, 16, 40, 1000])
def test_each_document_is_closed_by_one_endoftext(
    tmp_path: Path, bytes_and_endoftext: Tokenizer, combine: int
) -> None:
    documents = ["one", "two", "", "three\n", "four", "five"]
    files = write_files(tmp_path, list(documents))
    chunks = as_lists(read_chunks(files, bytes_and_endoftext, 257, combine=combine))
    expected = [[*document.encode(), END] for document in documents if document]
    assert list(itertools.chain(*chunks)) == list(itertools.chain(*expected))
    # No document is cut, and all chunks but the last are as long as asked for.
    assert all(chunk[-1] == END for chunk in chunks)
    texts = [bytes_and_endoftext.decode(chunk) for chunk in chunks]
    assert all(len(text.removesuffix(MARK)) >= combine for text in texts[:-1])


def test_a_vocabulary_without_endoftext_joins_documents_as_they_are(
    tmp_path: Path, bytes_only: Tokenizer
) -> None:
    files = write_files(tmp_path, ["one", "", "two"])
    assert as_lists(read_chunks(files, bytes_only, 256)) == [list(b"onetwo")]
    assert as_lists(read_chunks(files, bytes_only, 256, combine=3)) == [list(b"one"), list(b"two")]


def test_a_marker_in_the_text_is_one_token_or_spelled_out(
    tmp_path: Path, bytes_and_endoftext: Tokenizer
) -> None:
    files = write_files(tmp_path, [f"a{MARK}b"])
    [chunk] = as_lists(read_chunks(files, bytes_and_endoftext, 257))
    assert chunk == [97, END, 98, END]
    [chunk] = as_lists(read_chunks(files, bytes_and_endoftext, 257, combine=5))
    assert chunk == [97, END, 98, END]
    [chunk] = as_lists(read_chunks(files, bytes_and_endoftext, 257, legacy_endoftext=True))
    assert chunk == list(f"a{MARK}b{MARK}".encode())


def test_byte_order_marks_are_dropped_except_in_legacy_mode(
    tmp_path: Path, bytes_and_endoftext: Tokenizer
) -> None:
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for path in paths:
        path.write_bytes(b"\xef\xbb\xbfhi")
    [chunk] = as_lists(read_chunks(paths, bytes_and_endoftext, 257))
    assert chunk == [*b"hi", END, *b"hi", END]
    [chunk] = as_lists(
        read_chunks(paths[:1], bytes_and_endoftext, 257, combine=1, legacy_endoftext=True)
    )
    assert chunk == list(b"\xef\xbb\xbfhi")


def test_empty_files_give_no_chunks(tmp_path: Path, bytes_and_endoftext: Tokenizer) -> None:
    files = write_files(tmp_path, ["", "", ""])
    for combine in (0, 1, 1000):
        assert as_lists(read_chunks(files, bytes_and_endoftext, 257, combine=combine)) == []


def test_ids_beyond_the_models_vocabulary_are_refused(
    tmp_path: Path, bytes_and_endoftext: Tokenizer
) -> None:
    files = write_files(tmp_path, ["az"])
    assert as_lists(read_chunks(files, bytes_and_endoftext, 257)) == [[97, 122, END]]
    with pytest.raises(UserError, match=r"token 256, .* ends at 255.*encoder\.json"):
        list(read_chunks(files, bytes_and_endoftext, 256))
    files = write_files(tmp_path, [[[3, 100]]])
    assert as_lists(read_chunks(files, bytes_and_endoftext, 101)) == [[3, 100]]
    with pytest.raises(UserError, match=r"000\.npz: arr_0 contains token id 100, .* ends at 99"):
        list(read_chunks(files, bytes_and_endoftext, 100))


def test_tokens_are_kept_in_two_bytes_where_they_fit(
    tmp_path: Path, bytes_and_endoftext: Tokenizer
) -> None:
    files = write_files(tmp_path, ["text", [[1, 2]]])
    for n_vocab, expected in ((257, np.uint16), (65536, np.uint16), (65537, np.int32)):
        chunks = list(read_chunks(files, bytes_and_endoftext, n_vocab))
        assert [chunk.dtype for chunk in chunks] == [expected, expected]


def test_the_largest_id_of_two_bytes_survives(tmp_path: Path) -> None:
    files = write_files(tmp_path, [[[0, 65535]]])
    [chunk] = npz.read(files[0], 65536)
    assert chunk.tolist() == [0, 65535]


def test_progress_adds_up_to_the_size_of_the_files(
    tmp_path: Path, bytes_and_endoftext: Tokenizer
) -> None:
    files = write_files(tmp_path, MIXED)
    sizes: list[int] = []
    list(read_chunks(files, bytes_and_endoftext, 257, progress=sizes.append))
    assert sum(sizes) == sum(file.stat().st_size for file in files)


def test_a_dataset_is_a_file_a_folder_or_a_pattern(tmp_path: Path) -> None:
    names = ["b.txt", "a.txt", "B.txt", "sub/deeper/c.txt", "sub/a.txt", "a10.txt", "a9.npz"]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)

    def found(dataset: Path) -> list[str]:
        return [path.relative_to(tmp_path).as_posix() for path in find_files(str(dataset))]

    assert found(tmp_path / "b.txt") == ["b.txt"]
    # In the order of the names, part by part: a folder's files follow one another.
    assert found(tmp_path) == [
        "B.txt",
        "a.txt",
        "a10.txt",
        "a9.npz",
        "b.txt",
        "sub/a.txt",
        "sub/deeper/c.txt",
    ]
    assert found(tmp_path / "?.txt") == ["B.txt", "a.txt", "b.txt"]
    assert found(tmp_path / "sub" / "*") == ["sub/a.txt"]  # a folder that matches is no file


def test_symbolic_links_neither_circle_nor_count_a_file_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "other" / "deep").mkdir(parents=True)
    for name in ("a.txt", "d/b.txt", "d/e/c.txt", "other/deep/o.txt"):
        (tmp_path / name).write_text(name)
    for link, target in (
        *(("d/up", ".."), ("d/e/up", "../.."), ("d/self", "."), ("d/e/self", ".")),
        *(("d/away", "../other"), ("other/back", "../d"), ("d/again.txt", "b.txt")),
        *(("d/broken", "nothing"), ("d/broken.txt", "nothing.txt"), ("z.txt", "a.txt")),
    ):
        (tmp_path / link).symlink_to(target)
    os.link(tmp_path / "a.txt", tmp_path / "d" / "hard.txt")  # a file of its own
    monkeypatch.chdir(tmp_path)

    def found(pattern: str) -> list[str]:
        return [path.as_posix() for path in find_files(pattern)]

    below_d = ["d/again.txt", "d/e/c.txt", "d/hard.txt"]
    everything = ["a.txt", *below_d, "other/deep/o.txt"]
    assert found("**/*.txt") == found("**") == everything
    assert found("d/**/*.txt") == sorted([*below_d, "d/away/deep/o.txt", "d/up/a.txt"])
    assert found("./**/e/*.txt") == ["d/e/c.txt"]
    assert found("**/deep/**/o.txt") == ["other/deep/o.txt"]
    assert found(str(tmp_path / "**" / "c.txt")) == [(tmp_path / "d/e/c.txt").as_posix()]
    assert found("*.txt") == ["a.txt"]
    assert found(".") == everything


def test_hidden_folders_are_left_out_of_patterns(tmp_path: Path) -> None:
    for folder in (".git", "[x]", "[x]/.cache"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").touch()
    assert find_files(f"{tmp_path}/**/*.txt") == [tmp_path / "[x]" / "a.txt"]
    assert find_files(f"{tmp_path}/.git/**") == [tmp_path / ".git" / "a.txt"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "[ab].txt").write_text("this one")
    (tmp_path / "a.txt").write_text("not this one")
    assert find_files(str(tmp_path / "[ab].txt")) == [tmp_path / "[ab].txt"]


@pytest.mark.parametrize("name", ["missing.txt", "*.text", "empty", "", "x" * 300])
def test_a_dataset_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty" if name == "" else tmp_path)
    with pytest.raises(UserError, match="is not a file, a folder with files or a pattern"):
        find_files(name)
