"""Encoding from the command line: every kind of file, and errors in files."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from gpt2.data import shards
from gpt2.hparams import HParams
from gpt2.tokenizer import Tokenizer, train_vocabulary, write_vocabulary
from tests.commands.toolkit_copy import Done, Toolkit

ENCODE = "python src/encode.py"


@pytest.fixture
def toolkit(encoding_toolkit: Toolkit) -> Toolkit:
    return encoding_toolkit


def texts(toolkit: Toolkit, name: str = "out.npz") -> list[str]:
    """The documents in a file of tokens."""
    tokenizer = Tokenizer.load(toolkit.root / "models" / "117M")
    with np.load(toolkit.root / name) as archive:
        ids = np.concatenate([archive[chunk] for chunk in archive.files])
    documents = tokenizer.decode(ids.tolist()).split("<|endoftext|>")
    assert documents.pop() == ""  # the last one is closed, too
    return documents


def encode(toolkit: Toolkit, flags: str, typed: str = "") -> tuple[Done, list[str]]:
    done = toolkit.run(f"{ENCODE} {flags} out.npz", typed=typed)
    assert done.code == 0, done
    return done, texts(toolkit)


def test_a_folder_of_every_kind_of_file_is_encoded(toolkit: Toolkit) -> None:
    folder = toolkit.root / "texts"
    (folder / "b").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("hidden")
    (folder / "a.txt").write_text("A plain text.\r\n")
    (folder / "b" / "1.csv").write_text('title,text\nx,"A cell, with\n""lines""."\ny,Another.\n')
    (folder / "b" / "2.jsonl").write_text('{"text": "A record."}\n{"text": ""}\n')
    (folder / "b" / "3.md.gz").write_bytes(gzip.compress(b"# A packed text"))
    (folder / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    (folder / "d.txt").write_text("\n  \n")
    done, found = encode(toolkit, "texts")
    expected = ["A plain text.\n", 'A cell, with\n"lines".', "Another.", "A record."]
    assert found == [*expected, "# A packed text"]
    table, picture = done.sentences
    assert re.search(r"1\.csv: .*column 'text'", table)
    assert re.search(r"c\.png.* skipped.*PNG", picture)
    (toolkit.root / "checkpoint" / "117M").mkdir(parents=True)
    done, found = encode(toolkit, "'texts/**/*.gz'")
    [notice] = done.sentences
    assert str(Path("models/117M")) in notice and str(Path("checkpoint/117M")) in notice
    assert found == ["# A packed text"]


def test_standard_input_is_encoded(toolkit: Toolkit) -> None:
    _, found = encode(toolkit, "-", typed="Piped in.\n")
    assert found == ["Piped in.\n"]
    _, found = encode(toolkit, "- --format jsonl --field body", typed='{"body": "One."}\n')
    assert found == ["One."]
    _, found = encode(toolkit, "- --lines", typed="One.\n\nTwo.")
    assert found == ["One.", "Two."]


def test_an_output_without_the_suffix_npz_gets_it_as_numpy_does(toolkit: Toolkit) -> None:
    (toolkit.root / "a.txt").write_text("A text.")
    done = toolkit.run(f"{ENCODE} a.txt ./a.txt").succeeds()
    assert "Writing a.txt.npz\n" in done.out
    assert texts(toolkit, "a.txt.npz") == ["A text."]
    assert (toolkit.root / "a.txt").read_text() == "A text."


def write_long(toolkit: Toolkit, times: int) -> None:
    """Write a text that is long enough for other processes to be started."""
    with open(toolkit.root / "long.txt", "w", encoding="utf-8") as file:
        for number in range(40):
            file.write(f"{number} is a text of its own. " * times)


def test_any_number_of_processes_writes_the_same_folder(toolkit: Toolkit) -> None:
    write_long(toolkit, times=17_000)
    one, two = toolkit.run_all(
        f"{ENCODE} long.txt one/ --workers 1", f"{ENCODE} long.txt two/ --workers 2"
    )
    size = (toolkit.root / "long.txt").stat().st_size
    assert one.succeeds().out.splitlines()[1:] == ["Writing one", f"{size + 1:,} tokens"]
    assert two.succeeds().out.splitlines()[1:] == ["Writing two", f"{size + 1:,} tokens"]
    assert toolkit.contents("one") == toolkit.contents("two")
    assert sum(map(len, shards.read(toolkit.root / "one", 257))) == size + 1
    toolkit.run(f"{ENCODE} long.txt one/").says(1, "^one\\b.* exists.* [Dd]elete")


@pytest.mark.skipif(os.name == "nt", reason="sends signals that Windows does not have")
@pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_a_stopped_encoding_leaves_the_old_file_and_nothing_else(
    toolkit: Toolkit, sent: str
) -> None:
    out, pipe = toolkit.root / "out.npz", toolkit.root / "pipe.txt"
    out.write_bytes(b"old")
    os.mkfifo(pipe)
    with open(pipe, "r+b", buffering=0) as writer:  # which never ends the text
        writer.write(b"A text without an end.")
        with toolkit.start(f"{ENCODE} pipe.txt out.npz") as running:
            running.send_when(getattr(signal, sent), lambda: bool(partials(toolkit)))
            done = running.finish()
    assert out.read_bytes() == b"old"
    if sent == "SIGKILL":
        assert encode(toolkit, "-", typed="New.")[1] == ["New."]
    else:
        done.says(130, "^interrupted$")
    assert partials(toolkit) == []


def partials(toolkit: Toolkit) -> list[Path]:
    return list(toolkit.root.glob("*.partial"))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes as Linux lists them")
def test_an_interrupted_encoding_leaves_no_process(toolkit: Toolkit) -> None:
    write_long(toolkit, times=25_000)
    with toolkit.start(f"{ENCODE} long.txt out.npz --workers 3") as running:
        others = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
        running.wait_until(lambda: len(others.read_text().split()) == 2)
        started = others.read_text().split()
        running.process.send_signal(signal.SIGINT)
        running.finish().says(130, "^interrupted$")
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{number}").exists() for number in started):
        assert time.monotonic() < deadline, "a process is still there"
        time.sleep(0.01)


def test_an_unreadable_file_is_an_error_and_nothing_is_written(toolkit: Toolkit) -> None:
    root = toolkit.root
    (root / "poems.csv").write_text("title,body\nx,y\n")
    (root / "chat.jsonl").write_text('{"text": "a"}\n{"text": "b"\n{"text": "c"}\n')
    (root / "half.jsonl").write_text(json.dumps({"text": "\ud800"}) + "\n")
    (root / "latin.txt").write_bytes("Grüße".encode("latin-1"))
    (root / "blank.txt").write_text(" \n\n")
    (root / "torn.txt.gz").write_bytes(gzip.compress(b"text " * 1000)[:-20])
    before = toolkit.contents()
    sentences = {
        "poems.csv": "^poems.csv.*column.*'title', 'body'",
        "poems.csv --column verse": "^poems.csv.*'verse'.*'title', 'body'",
        "chat.jsonl": r"^chat\.jsonl,? line 2\b.*JSON",
        "half.jsonl": r"^half\.jsonl,? line 1\b.*surrogate \(U\+D800\).*--errors replace",
        "latin.txt": r"^latin\.txt.* utf-8\b.* offset 2\b.*--errors replace",
        "blank.txt": r"^blank\.txt contains no text to encode",
        "torn.txt.gz": r"^torn\.txt\.gz\b",
        "blank.txt --workers 0": "^--workers must be a whole number .*1, not 0",
    }
    answers = toolkit.run_all(*(f"{ENCODE} {flags} out.npz" for flags in sentences))
    for done, sentence in zip(answers, sentences.values(), strict=True):
        done.says(1, sentence)
    assert toolkit.contents() == before
    _, found = encode(toolkit, "latin.txt --errors replace")
    assert found == ["Gr\ufffd\ufffde"]
    _, found = encode(toolkit, "latin.txt --encoding latin-1")
    assert found == ["Grüße"]


@pytest.mark.parametrize(
    "out", ["''", "-", "/dev/full", "/dev/null", "texts", "text.txt/a/", "no/a"]
)
def test_an_output_that_cannot_be_written_is_refused_first(toolkit: Toolkit, out: str) -> None:
    (toolkit.root / "text.txt").write_text("Some text.")
    (toolkit.root / "texts").mkdir()
    before = toolkit.contents()
    for done in toolkit.run_in_one_process(
        f"{ENCODE} text.txt {out}",
        f"python src/generate_conditional_samples.py --prompt hi --model_name 117M --out={out}"
        if out != "-"
        else f"{ENCODE} text.txt {out}",
    ):
        done.says(1, "output|cannot be written")
        assert "Reading files" not in done.out
    assert toolkit.contents() == before


def test_tokens_beyond_the_models_vocabulary_are_refused(toolkit: Toolkit) -> None:
    (toolkit.root / "text.txt").write_text("abc")
    HParams(n_vocab=66, n_embd=8, n_head=2).save(toolkit.root / "models" / "117M" / "hparams.json")
    done = toolkit.run(f"{ENCODE} text.txt out.npz")
    done.says(1, "vocabulary ends at 65.* encoder.json and hparams.json")
    assert not (toolkit.root / "out.npz").exists()


def test_an_array_without_tokens_is_no_text(toolkit: Toolkit) -> None:
    np.savez(toolkit.root / "empty.npz", np.zeros(0, np.int64), np.zeros(0, np.int64))
    for done in toolkit.run_in_one_process(
        f"{ENCODE} empty.npz out.npz", f"{ENCODE} empty.npz out/"
    ):
        done.says(1, r"empty\.npz contains no text")
    assert not any((toolkit.root / name).exists() for name in ("out.npz", "out"))


def test_truncated_merges_are_refused(toolkit: Toolkit) -> None:
    (toolkit.root / "text.txt").write_text("abc")
    folder = toolkit.root / "models" / "117M"
    write_vocabulary(folder, *train_vocabulary(["one text and another text"], 262))
    (folder / "vocab.bpe").write_bytes(b"")
    toolkit.run(f"{ENCODE} text.txt out.npz").says(1, r"vocab\.bpe.* truncated")
