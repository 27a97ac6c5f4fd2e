"""Tokens of any text in bounded memory, the same in parts and in however many processes."""

from __future__ import annotations

import itertools
import json
import random
import sys
import tracemalloc
import unicodedata
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from gpt2.data import npz, sources, tokenization
from gpt2.data.readers import ReaderSettings
from gpt2.data.tokenization import read_chunks, read_documents, read_parts, read_texts
from gpt2.errors import UserError
from gpt2.tokenizer import Tokenizer
from gpt2.tokenizer.words import last_seam, words
from tests.support import waiting

END = 256
MARK = "<|endoftext|>"
ALPHABET = [
    *"ab1²9 '  \n\n\t.,|<>!",
    "日本",
    "語。",
    "é",
    "e\u0301",
    "\u0301",
    "'s",
    "'re",
    MARK,
    "😀",
]
ALPHABET += ["<|end", "oftext|>", "\u2028", "\u00a0", " \u3000", "한", "\u1112\u1161\u11ab"]


def random_text(generator: random.Random, size: int) -> str:
    return "".join(generator.choices(ALPHABET, k=size))


@pytest.fixture
def generator() -> random.Random:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.fixture(scope="module")
def gpt2(shared_data: Path) -> Tokenizer:
    return Tokenizer.load(shared_data / "gpt2")


def test_no_word_changes_at_a_seam(generator: random.Random) -> None:
    cuts = 0
    for _ in range(3000):
        whole = random_text(generator, generator.randrange(1, 30))
        stop = generator.randrange(len(whole) + 1)
        cut = last_seam(whole[:stop])  # which does not know what follows
        parts = [*words(whole[:cut]), *words(whole[cut:])]
        assert list(itertools.chain(*parts)) == list(itertools.chain(*words(whole))), whole
        # Neither does a marker, nor a character that is spelled in several ways.
        assert whole.count(MARK) == whole[:cut].count(MARK) + whole[cut:].count(MARK), whole
        composed = [unicodedata.normalize("NFC", part) for part in (whole[:cut], whole[cut:])]
        assert "".join(composed) == unicodedata.normalize("NFC", whole), whole
        cuts += 0 < cut < stop
    assert cuts > 1000


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("lines", [False, True])
def test_texts_in_parts_have_the_tokens_of_texts_in_one_piece(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    generator: random.Random,
    gpt2: Tokenizer,
    legacy: bool,
    lines: bool,
) -> None:
    files = []
    for number in range(6):
        files.append(tmp_path / f"{number}.txt")
        content = random_text(generator, generator.choice([0, 3, 50, 2000]))
        files[-1].write_text(content, encoding="utf-8", newline="")

    def chunks(part: int, normalize: str, combine: int) -> list[list[int]]:
        monkeypatch.setattr(tokenization, "PART", part)
        found = read_chunks(
            files,
            gpt2,
            50257,
            combine=combine,
            reading=ReaderSettings(lines=lines, normalize=normalize),
            legacy_endoftext=legacy,
        )
        return [chunk.tolist() for chunk in found]

    for settings in itertools.product(("none", "nfc"), (1, 100, 10**6)):
        expected = chunks(2**30, *settings)
        for part in (1, 7, 64, 500):
            assert chunks(part, *settings) == expected


def test_one_endless_line_has_the_tokens_it_has_in_one_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpt2: Tokenizer
) -> None:
    monkeypatch.setattr(tokenization, "PART", 1000)
    for number, line in enumerate(
        (
            "It was the best of times, it was the worst of times; " * 1000,
            "これは長い文章です。空白はありません、" * 2000,
            "x=1;y=22;" * 5000,
        )
    ):
        path = tmp_path / f"{number}.txt"
        path.write_text(line, encoding="utf-8")
        parts = list(read_parts([path], gpt2, 50257))
        assert len(parts) > 10
        assert max(len(part.tokens) for part in parts) < 30_000
        assert [part.ends for part in parts] == [False] * (len(parts) - 1) + [True]
        ids = np.concatenate([part.tokens for part in parts]).tolist()
        assert ids == [*gpt2.encode(line), 50256]


def test_a_word_without_an_end_is_cut_and_still_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpt2: Tokenizer
) -> None:
    monkeypatch.setattr(tokenization, "PART", 100)
    monkeypatch.setattr(tokenization, "LONGEST_WORD", 400)
    path = tmp_path / "a.txt"
    for word in ("w" * 10_000, " " * 10_000 + "x"):
        path.write_text(word)
        [chunk] = read_chunks([path], gpt2, 50257)
        assert gpt2.decode(chunk.tolist()) == word + MARK


def test_an_endless_document_is_several_chunks_except_in_legacy_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bytes_and_endoftext: Tokenizer
) -> None:
    monkeypatch.setattr(tokenization, "PART", 100)
    monkeypatch.setattr(tokenization, "LONGEST_CHUNK", 1000)
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    paths[0].write_text("some words " * 500)
    paths[1].write_text("end")
    chunks = list(read_chunks(paths, bytes_and_endoftext, 257, combine=300))
    assert np.concatenate(chunks).tolist() == [*b"some words " * 500, END, *b"end", END]
    assert 5 <= len(chunks) <= 6
    assert all(900 < len(chunk) < 1200 for chunk in chunks[:5])
    whole, end = read_chunks(paths, bytes_and_endoftext, 257, combine=300, legacy_endoftext=True)
    assert (len(whole), len(end)) == (5500, 3 + len(MARK))


def test_memory_does_not_grow_with_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bytes_and_endoftext: Tokenizer
) -> None:
    monkeypatch.setattr(tokenization, "PART", 2**14)
    monkeypatch.setattr(sources, "BLOCK", 2**14)
    monkeypatch.setattr(npz, "_BLOCK", 2**14)
    monkeypatch.setattr(npz, "_AHEAD", 2)
    path = tmp_path / "a.txt"

    def most_memory(size: int) -> int:
        path.write_bytes(b"some words " * (size // 11))
        tracemalloc.start()
        tokens = npz.write_parts(
            tmp_path / "a.npz", read_parts([path], bytes_and_endoftext, 257, combine=10**9)
        )
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert tokens == size // 11 * 11 + 1
        return most

    most_memory(10_000)  # what is loaded once
    small, large = most_memory(500_000), most_memory(3_000_000)
    # Its tokens alone would take 5 MB more. How much the threads hold at once varies.
    assert large < small + 1_000_000


def write_corpus(path: Path, generator: random.Random) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for number in range(3000):
            record = {"id": number, "text": random_text(generator, generator.randrange(60))}
            file.write(json.dumps(record) + "\n")


def test_any_number_of_processes_makes_the_same_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generator: random.Random, gpt2: Tokenizer
) -> None:
    monkeypatch.setattr(tokenization, "PART", 4000)
    monkeypatch.setattr(tokenization, "ALONE", 2)
    monkeypatch.setattr(npz, "_BLOCK", 1000)
    (tmp_path / "0.txt").write_text("Short.")
    write_corpus(tmp_path / "1.jsonl", generator)
    np.savez(tmp_path / "2.npz", np.array([1, 2, 3]), np.array([4]))
    (tmp_path / "3.txt").write_text("words that follow each other " * 1000)
    files = tokenization.find_files(str(tmp_path))
    expected = [chunk.tolist() for chunk in read_chunks(files, gpt2, 50257, combine=3000)]
    assert len(expected) > 10
    written = set()
    for workers in (1, 2, 3):
        chunks = read_chunks(files, gpt2, 50257, combine=3000, workers=workers)
        assert [chunk.tolist() for chunk in chunks] == expected
        path = tmp_path / f"{workers}-workers.npz"
        npz.write_parts(path, read_parts(files, gpt2, 50257, combine=3000, workers=workers))
        written.add(path.read_bytes())
        with np.load(path) as arrays:
            assert [array.tolist() for array in arrays.values()] == expected
    assert len(written) == 1
    # As if no task waited for this process: the workers do all.
    monkeypatch.setattr(Future, "cancel", lambda future: False)
    chunks = read_chunks(files, gpt2, 50257, combine=3000, workers=2)
    assert [chunk.tolist() for chunk in chunks] == expected


def test_the_whole_is_what_the_documents_are_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generator: random.Random, gpt2: Tokenizer
) -> None:
    monkeypatch.setattr(tokenization, "PART", 500)
    write_corpus(tmp_path / "1.jsonl", generator)
    (tmp_path / "2.txt").write_text("words that follow each other " * 1000)
    files = tokenization.find_files(str(tmp_path))
    found = list(read_documents(files, gpt2, 50257))
    assert [document.source for document in found[-2:]] == list(map(str, files))
    assert all(document.tokens[-1] == 50256 for document in found)
    chunks = list(read_chunks(files, gpt2, 50257))
    assert np.concatenate([document.tokens for document in found]).tolist() == (
        np.concatenate(chunks).tolist()
    )
    records = [json.loads(line)["text"] for line in files[0].open(encoding="utf-8")]
    records = [record for record in records if record.strip()]
    for record, document in zip(records, found, strict=False):
        assert gpt2.decode(document.tokens.tolist()) == record + MARK


def test_documents_of_a_file_of_tokens_end_after_each_endoftext(
    tmp_path: Path, bytes_and_endoftext: Tokenizer
) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, np.array([1, END, 2, 3, END]), np.array([4]))
    found = read_documents([path], bytes_and_endoftext, 257)
    assert [(document.tokens.tolist(), document.source) for document in found] == [
        ([1, END], str(path)),
        ([2, 3, END], str(path)),
        ([4], str(path)),
    ]


def tokens_of(tokenizer: Tokenizer, path: Path, **reading: object) -> list[int]:
    chunks = list(read_chunks([path], tokenizer, 257, reading=ReaderSettings(**reading)))
    return np.concatenate(chunks).tolist() if chunks else []


def test_blank_documents_are_left_out(tmp_path: Path, bytes_and_endoftext: Tokenizer) -> None:
    path = tmp_path / "a.txt"
    for blank in ("", " ", "\n\n \t\n", "\ufeff", "\ufeff\r\n"):
        path.write_text(blank, encoding="utf-8", newline="")
        assert tokens_of(bytes_and_endoftext, path) == []
    path.write_text("one\n\n  \n two\n", encoding="utf-8")
    assert tokens_of(bytes_and_endoftext, path, lines=True) == [*b"one", END, *b" two", END]
    path.write_text("\n\n one\n", encoding="utf-8")
    assert tokens_of(bytes_and_endoftext, path) == [*b"\n\n one\n", END]  # these blanks are text
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n{"text": " "}\n{"text": "two"}\n')
    assert tokens_of(bytes_and_endoftext, path) == [*b"one", END, *b"two", END]


def test_a_blank_beginning_that_is_too_long_to_wait_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bytes_and_endoftext: Tokenizer
) -> None:
    monkeypatch.setattr(tokenization, "LONGEST_BLANK", 10)
    path = tmp_path / "a.txt"
    path.write_text("\n" * 1000 + "end")
    assert tokens_of(bytes_and_endoftext, path) == [*b"\n" * 1000, *b"end", END]


def test_characters_are_composed_where_it_is_wished(
    tmp_path: Path, bytes_and_endoftext: Tokenizer
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("e\u0301", encoding="utf-8")
    assert tokens_of(bytes_and_endoftext, path) == [*"e\u0301".encode(), END]
    assert tokens_of(bytes_and_endoftext, path, normalize="nfc") == [*"é".encode(), END]


def test_texts_for_a_vocabulary_are_the_texts_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenization, "PART", 100)
    (tmp_path / "a.txt").write_text("\ufefffirst text " * 100, encoding="utf-8")
    (tmp_path / "b.csv").write_text("text\nsecond\n")
    found = list(read_texts(tokenization.find_files(str(tmp_path))))
    assert len(found) > 10
    assert "".join(found) == ("\ufefffirst text " * 100).removeprefix("\ufeff") + "second"
    np.savez(tmp_path / "c.npz", np.array([1]))
    with pytest.raises(UserError, match=r"c\.npz contains tokens"):
        list(read_texts(tokenization.find_files(str(tmp_path))))


def test_tokens_become_the_text_again_in_parts_that_cut_no_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bytes_and_endoftext: Tokenizer
) -> None:
    monkeypatch.setattr(
        tokenization, "PART", 7
    )  # tokens of a byte each: borders within words and letters
    whole = "the größte Hüte, 中文中文字 and hats " * 9
    (tmp_path / "a.txt").write_text(f"{whole}\n", encoding="utf-8")
    np.savez(tmp_path / "b.npz", bytes_and_endoftext.encode_array(whole), [ord("x"), 0xC3])
    files = tokenization.find_files(str(tmp_path))
    sizes: list[int] = []
    options = {"tokenizer": bytes_and_endoftext, "n_vocab": 257, "progress": sizes.append}
    found = list(read_texts(files, **options))
    assert "".join(found) == f"{whole}\n{whole}x\ufffd"
    assert sum(sizes) == sum(path.stat().st_size for path in files)
    spelled = found[next(n for n, part in enumerate(found) if part.endswith("\n")) + 1 :]
    assert len(spelled) > 20
    split = [word for part in spelled[:-1] for some in words(part) for word in some]
    assert split == [word for some in words(whole) for word in some]


def test_a_binary_file_is_skipped_among_others_and_refused_alone(
    tmp_path: Path, bytes_and_endoftext: Tokenizer
) -> None:
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\0")
    notices: list[str] = []
    files = tokenization.find_files(str(tmp_path))
    [chunk] = read_chunks(files, bytes_and_endoftext, 257, notice=notices.append)
    assert chunk.tolist() == [*b"one", END]
    assert [notice.partition(" is skipped")[0] for notice in notices] == [str(files[1])]
    (tmp_path / "c.txt").write_bytes(b"a\0b")
    with pytest.raises(UserError, match=r"c\.txt: a binary file"):
        tokens_of(bytes_and_endoftext, tmp_path / "c.txt")
    assert tokens_of(bytes_and_endoftext, tmp_path / "c.txt", format="text") == [*b"a\0b", END]


def test_standard_input_is_a_file_like_others() -> None:
    program = (
        "import sys; from gpt2.data.tokenization import find_files, read_texts\n"
        "from gpt2.data.readers import ReaderSettings\n"
        "sizes = []\n"
        "reading = ReaderSettings(format=sys.argv[1])\n"
        "texts = list(read_texts(find_files('-'), reading=reading, progress=sizes.append))\n"
        "print(ascii(texts), sum(sizes))\n"
    )
    source = Path(tokenization.__file__).parents[2]

    def said(kind: str, typed: bytes) -> str:
        command = [sys.executable, "-c", program, kind]
        done = waiting.run(command, typed, text=False, cwd=source)
        assert done.stderr == b""
        return done.stdout.decode().strip()

    assert said("auto", "ä\r\nb".encode()) == "['\\xe4\\nb'] 5"
    assert said("jsonl", b'{"text": "a"}\n{"text": "b"}\n') == "['a', 'b'] 28"
    assert said("csv", b"text\na\n") == "['a'] 7"
    assert said("auto", b"") == "[] 0"
