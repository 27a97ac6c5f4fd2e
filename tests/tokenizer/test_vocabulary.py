"""The two files of a vocabulary."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from gpt2.errors import UserError
from gpt2.tokenizer import (
    ENDOFTEXT,
    Tokenizer,
    read_encoder,
    read_merges,
    read_vocabulary,
    train_vocabulary,
    with_tokens,
    write_vocabulary,
)
from gpt2.tokenizer.vocabulary import CHARACTER_OF_BYTE, spelled, token_bytes

ENCODER = '{"a": 0, "b": 1, "ab": 2, "\\u0120": 3}'
MERGES = "#version: 0.2\na b\nĠ ab\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "encoder.json").write_bytes(ENCODER.encode())
    (tmp_path / "vocab.bpe").write_bytes(MERGES.encode())
    return tmp_path


def test_every_byte_has_one_visible_character_of_its_own():
    assert sorted(CHARACTER_OF_BYTE) == list(range(256))
    assert len(set(CHARACTER_OF_BYTE.values())) == 256
    assert all(character.isprintable() for character in CHARACTER_OF_BYTE.values())
    assert not any(character.isspace() for character in CHARACTER_OF_BYTE.values())


def test_bytes_are_spelled_as_worked_by_hand():
    assert spelled(" naïve\n") == "ĠnaÃ¯veĊ"
    assert token_bytes("ĠnaÃ¯veĊ") == b" na\xc3\xafve\n"
    assert token_bytes("ĠðŁ") == b" \xf0\x9f"


def test_the_order_of_the_bytes_is_that_of_openais_ids(shared_data: Path):
    openai = read_encoder(shared_data / "gpt2" / "encoder.json")
    assert [openai[character] for character in CHARACTER_OF_BYTE.values()] == list(range(256))


def test_openais_files_written_again_are_the_same_to_the_byte(shared_data: Path, tmp_path: Path):
    source = shared_data / "gpt2"
    vocabulary = read_encoder(source / "encoder.json")
    merges = read_merges(source / "vocab.bpe")
    assert (len(vocabulary), len(merges)) == (50257, 50000)
    write_vocabulary(tmp_path, vocabulary, merges)
    for name in ("encoder.json", "vocab.bpe"):
        assert (tmp_path / name).read_bytes() == (source / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder.json", "vocab.bpe"]


@pytest.mark.parametrize(
    "content",
    [
        MERGES,
        "a b\nĠ ab\n",
        "a b\nĠ ab",
        MERGES.replace("\n", "\r\n"),
        MERGES.replace("0.2", "0.2 - by another writer") + "\n\n",
    ],
)
def test_merges_are_read_from_files_of_several_writers(folder: Path, content: str):
    (folder / "vocab.bpe").write_bytes(content.encode())
    assert read_merges(folder / "vocab.bpe") == [("a", "b"), ("Ġ", "ab")]


def test_a_merge_of_a_number_sign_in_the_first_line_is_a_merge(folder: Path):
    (folder / "vocab.bpe").write_bytes(b"# #\n")
    assert read_merges(folder / "vocab.bpe") == [("#", "#")]


@pytest.mark.parametrize("name", ["encoder.json", "vocab.bpe"])
def test_a_missing_file_is_named(folder: Path, name: str):
    (folder / name).unlink()
    with pytest.raises(UserError, match=name):
        Tokenizer.load(folder)


@pytest.mark.parametrize("name", ["encoder.json", "vocab.bpe"])
def test_a_file_that_is_no_text_is_named(folder: Path, name: str):
    (folder / name).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=f"{name} is not UTF-16 text"):
        Tokenizer.load(folder)


@pytest.mark.parametrize("content", ['{"a": 0', "", "<?xml version='1.0'?>", "[0, 1]", "7"])
def test_an_encoder_that_is_no_json_object_is_named(folder: Path, content: str):
    (folder / "encoder.json").write_text(content)
    with pytest.raises(UserError, match=r"encoder\.json"):
        Tokenizer.load(folder)


@pytest.mark.parametrize("number", ["-1", "1.0", '"1"', "null", "true", "[1]", "4294967296"])
def test_an_id_that_is_no_whole_number_is_named_with_its_token(folder: Path, number: str):
    (folder / "encoder.json").write_text(f'{{"a": 0, "bad": {number}}}')
    with pytest.raises(UserError, match=r"encoder\.json: the id of token 'bad' .*whole number"):
        Tokenizer.load(folder)


def test_an_id_of_two_tokens_is_named_with_both(folder: Path):
    (folder / "encoder.json").write_text('{"a": 0, "b": 1, "ab": 1}')
    with pytest.raises(UserError, match=r"encoder\.json: the tokens 'b' and 'ab' .* same id 1"):
        Tokenizer.load(folder)


def test_a_sentence_about_a_long_token_is_short(folder: Path):
    (folder / "encoder.json").write_text(json.dumps({"a": 0, "b" * 5000: 0}))
    with pytest.raises(UserError) as caught:
        read_encoder(folder / "encoder.json")
    assert len(str(caught.value).removeprefix(str(folder))) < 300


def test_ids_with_gaps_are_taken_as_they_are(folder: Path):
    (folder / "encoder.json").write_text('{"a": 7, "b": 3, "ab": 1000}')
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.encode("aabb") == [7, 1000, 3]
    assert tokenizer.decode([7, 8, 1000]) == "a\ufffdab"


def test_tokens_that_are_added_stand_behind_all_others():
    old = {"a": 0, "b": 7, ENDOFTEXT: 3}
    assert with_tokens(old, ["<|poem|>", "<|стих|>"]) == {
        **old,
        "<|poem|>": 8,
        "<|" + spelled("стих") + "|>": 9,
    }


@pytest.mark.parametrize("names", [[ENDOFTEXT], ["<|стих|>"], ["<|new|>", "<|new|>"]])
def test_a_special_token_that_is_there_already_is_refused(names: list[str]):
    old = with_tokens({"a": 0, ENDOFTEXT: 1}, ["<|стих|>"])
    with pytest.raises(UserError, match=f"special token {re.escape(names[-1])} already exists"):
        with_tokens(old, names)


@pytest.mark.parametrize("line", ["ab", "a b c", "<Error><Code>NoSuchBucket</Code></Error>"])
def test_a_broken_merge_is_named_with_its_line(folder: Path, line: str):
    (folder / "vocab.bpe").write_text(f"#version: 0.2\na b\n{line}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"vocab\.bpe line 3: "):
        Tokenizer.load(folder)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"missing.*cannot be written"):
        write_vocabulary(tmp_path / "missing", {"a": 0}, [])


# --- the two files together ---


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The files of a vocabulary with 20 merges and two special tokens."""
    text = "the cat sat on the mat, naïve 日本 " * 9
    vocabulary, merges = train_vocabulary([text], 278, special_tokens=["<|poem|>"])
    assert len(merges) == 20
    write_vocabulary(tmp_path, vocabulary, merges)
    return tmp_path


def test_merges_that_end_too_early_are_refused_wherever_they_end(trained: Path):
    path = trained / "vocab.bpe"
    whole = path.read_bytes()
    last_merge = whole.rstrip(b"\n")
    assert len(Tokenizer.load(trained).merges) == 20
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        if end == len(last_merge):  # only the newline is missing
            assert len(Tokenizer.load(trained).merges) == 20
            continue
        with pytest.raises(UserError, match=r"vocab\.bpe"):
            Tokenizer.load(trained)


def test_openais_merges_cut_at_a_line_end_are_refused(shared_data: Path, tmp_path: Path):
    shutil.copy(shared_data / "gpt2" / "encoder.json", tmp_path)
    lines = (shared_data / "gpt2" / "vocab.bpe").read_bytes().splitlines(keepends=True)
    for count in (0, 1, 2, 1000, 49_000, len(lines) - 1):
        (tmp_path / "vocab.bpe").write_bytes(b"".join(lines[:count]))
        with pytest.raises(UserError, match=r"vocab\.bpe.* truncated"):
            Tokenizer.load(tmp_path)


def test_a_missing_merge_in_the_middle_is_named_by_its_token(trained: Path):
    path = trained / "vocab.bpe"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    lost = "".join(lines[12].split())
    path.write_text("".join([*lines[:12], *lines[13:]]), encoding="utf-8")
    number = read_encoder(trained / "encoder.json")[lost]
    with pytest.raises(UserError, match=rf"1 of the tokens .*{re.escape(lost)}.* {number}\b"):
        Tokenizer.load(trained)


@pytest.mark.parametrize(
    "added", ["<pad>", "[SEP]", "<extra_id_1>", "madeupword0000", "<|im_start|>", "日本語"]
)
def test_added_tokens_of_other_tools_need_no_merge(trained: Path, added: str):
    vocabulary, merges = read_vocabulary(trained)
    write_vocabulary(trained, {**vocabulary, added: 999}, merges)
    assert Tokenizer.load(trained).vocabulary[added] == 999


def test_a_vocabulary_of_whole_words_has_no_merges(tmp_path: Path):
    words = ["[PAD]", "[UNK]", "the", "##s", "café", "中", "国"]  # as in BERT and gpt2-ml
    write_vocabulary(tmp_path, {word: number for number, word in enumerate(words)}, [])
    assert Tokenizer.load(tmp_path).decode([5, 6]) == "中国"


def test_a_merge_may_make_a_token_that_has_no_id(trained: Path):
    vocabulary, merges = read_vocabulary(trained)
    write_vocabulary(trained, vocabulary, [*merges, ("q", "q")])  # as OpenAI's code accepts it
    assert Tokenizer.load(trained).encode("a")
