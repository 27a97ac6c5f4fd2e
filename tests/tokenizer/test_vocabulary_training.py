"""Learning a vocabulary from text."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from gpt2.errors import UserError
from gpt2.tokenizer import ENDOFTEXT, Tokenizer, train_vocabulary, training, write_vocabulary
from gpt2.tokenizer.vocabulary import CHARACTER_OF_BYTE, spelled
from tests.tokenizer.references import GPT2_PATTERN, random_text, slow_training, slow_words

SOURCES = Path(__file__).resolve().parents[2] / "src"

STORY = """The miller's cat sat on a sack of barley and watched the river turn the wheel.
"Nothing ever changes here," she said to the heron, who was standing in the shallow water.
"That isn't so," answered the heron; "I've counted 127 different fish since yesterday morning."
Größe, naïveté: even the old grey donkey laughed. The wheel went round, and round, and round.
"""
STORY += STORY  # told twice, so that no pair of letters in it is met only once


def test_the_merges_of_a_small_example_worked_by_hand():
    # Byte-pair encoding's usual example: aaabdaaabac has "a a" four times, and then "a b" and
    # "aa a" twice each, of which "a b" comes first; then only "aa ab" occurs twice.
    vocabulary, merges = train_vocabulary(["aaabdaaabac"], 1000)
    assert merges == [("a", "a"), ("a", "b"), ("aa", "ab")]
    assert list(vocabulary)[256:] == ["aa", "ab", "aaab", ENDOFTEXT]


def test_among_equal_counts_the_first_in_the_order_of_strings_is_merged_first():
    # Each pair occurs twice; the order of the words does not matter.
    for text in ("zy ba zy ba", "ba zy ba zy"):
        _, merges = train_vocabulary([text.replace(" ", "\n")], 259)
        assert merges == [("b", "a"), ("z", "y")]


def test_ids_are_bytes_then_merges_in_order_then_endoftext():
    vocabulary, merges = train_vocabulary([STORY], 300)
    assert len(vocabulary) == 300
    assert list(vocabulary.values()) == list(range(300))
    tokens = list(vocabulary)
    assert tokens[:256] == list(CHARACTER_OF_BYTE.values())
    assert tokens[256:299] == [first + second for first, second in merges]
    assert tokens[299] == ENDOFTEXT


def naive_merges(texts: list[str], n_merges: int) -> list[tuple[str, str]]:
    words: Counter[str] = Counter()
    for text in texts:
        for document in text.split(ENDOFTEXT):
            words.update(spelled(word) for word in slow_words(document))
    return slow_training(words, n_merges)


def test_merges_equal_those_of_the_slow_trainer_on_a_story():
    assert train_vocabulary([STORY], 400)[1] == naive_merges([STORY], 143)


def test_merges_equal_those_of_the_slow_trainer_on_random_texts(generator: random.Random):
    for _ in range(60):
        texts = [random_text(generator, 80) for _ in range(generator.randrange(1, 4))]
        assert train_vocabulary(texts, 357)[1] == naive_merges(texts, 100)


@pytest.mark.parametrize("letters", ["ab", "abc", "abcdef"])
def test_merges_equal_those_of_the_slow_trainer_on_few_letters(
    generator: random.Random, letters: str
):
    # Few letters make overlaps and ties.
    for _ in range(100):
        sizes = [generator.choice([1, 2, 3, 5, 8, 40]) for _ in range(30)]
        text = " ".join("".join(generator.choices(letters, k=size)) for size in sizes)
        vocabulary, merges = train_vocabulary([text], 400)
        assert merges == naive_merges([text], 143)
        assert len(vocabulary) == 257 + len(merges)  # no two merges made the same token


def test_a_text_that_is_one_very_long_word_is_learnt_from(generator: random.Random):
    # With a cost per merge that grows with the text, this would not end.
    word = "".join(generator.choices("acgt", k=300_000))
    vocabulary, merges = train_vocabulary([word], 2000)
    assert len(vocabulary) == 2000
    tokenizer = Tokenizer(vocabulary, merges)
    assert tokenizer.decode(tokenizer.encode(word)) == word


def test_the_order_and_the_cutting_of_the_texts_do_not_matter():
    lines = STORY.splitlines(keepends=True)
    expected = train_vocabulary([STORY], 330)
    assert train_vocabulary(iter(lines), 330) == expected
    assert train_vocabulary(reversed(lines), 330) == expected


def test_the_result_does_not_depend_on_the_hash_seed():
    program = (
        "import sys; from gpt2.tokenizer import train_vocabulary; "
        "print(ascii(train_vocabulary([sys.argv[1]], 400)))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program, STORY],
            cwd=SOURCES,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2", "3")
    }
    assert outputs == {ascii(train_vocabulary([STORY], 400)) + "\n"}


def test_endoftext_separates_and_is_not_learnt():
    text = "ab<|endoftext|>" * 50 + "ab<ab<"
    vocabulary, merges = train_vocabulary([text], 1000)
    assert merges == [("a", "b")]
    assert Tokenizer(vocabulary, merges).encode("ab<|endoftext|>ab") == [256, 257, 256]


def test_a_text_too_short_for_the_vocabulary_gives_a_smaller_one():
    vocabulary, merges = train_vocabulary(["once"], 5000)
    assert (len(vocabulary), merges) == (257, [])
    assert len(train_vocabulary([], 257)[0]) == 257
    assert len(train_vocabulary([STORY], 257)[0]) == 257


@pytest.mark.parametrize("n_vocab", [256, 1, 0, -5])
def test_fewer_tokens_than_bytes_are_refused(n_vocab: int):
    with pytest.raises(UserError, match="257"):
        train_vocabulary([STORY], n_vocab)


def test_half_a_character_in_a_text_is_refused():
    with pytest.raises(UserError, match="Character 2 "):
        train_vocabulary(["fine", "no\ud800"], 300)


def test_a_learnt_vocabulary_written_and_loaded_works_on_any_text(
    tmp_path: Path, generator: random.Random
):
    vocabulary, merges = train_vocabulary([STORY], 350)
    write_vocabulary(tmp_path, vocabulary, merges)
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.vocabulary, tokenizer.merges) == (vocabulary, merges)
    assert tokenizer.endoftext == 349
    assert len(tokenizer.encode(STORY)) < len(STORY) / 2
    for _ in range(50):
        text = random_text(generator) + ENDOFTEXT
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_come_last_and_only_separate():
    vocabulary, merges = train_vocabulary(
        ["ab<|poem|>" * 50 + "ab<poem|"], 260, special_tokens=["<|poem|>", "<|1|>"]
    )
    assert merges == [("a", "b")]
    assert list(vocabulary)[256:] == ["ab", ENDOFTEXT, "<|poem|>", "<|1|>"]
    assert Tokenizer(vocabulary, merges).encode("ab<|poem|><|1|>ab") == [256, 258, 259, 256]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["poem"], "'poem' is not a valid special token"),
        (["<|two words|>"], "is not a valid special token"),
        (["<|" + "x" * 64 + "|>"], "is not a valid special token"),
        ([ENDOFTEXT], "already exists"),
        (["<|a|>", "<|b|>", "<|a|>"], r"special token <\|a\|> already exists"),
    ],
)
def test_special_tokens_that_cannot_be_are_refused(names: list[str], sentence: str):
    with pytest.raises(UserError, match=sentence):
        train_vocabulary([STORY], 300, special_tokens=names)


def test_a_vocabulary_has_to_hold_its_special_tokens():
    names = [f"<|{number}|>" for number in range(10)]
    assert len(train_vocabulary([STORY], 267, special_tokens=names)[0]) == 267
    with pytest.raises(UserError, match="the special tokens make 267"):
        train_vocabulary([STORY], 266, special_tokens=names)


@pytest.mark.parametrize("min_frequency", [1, 2, 3, 7])
def test_pairs_below_the_least_frequency_are_not_merged(min_frequency: int):
    text = " ".join(["seven"] * 7 + ["three"] * 3 + ["two"] * 2 + ["once"])
    vocabulary, _ = train_vocabulary([text], 5000, min_frequency=min_frequency)
    words_made = {"Ġseven": 6, "Ġthree": 3, "Ġtwo": 2, "Ġonce": 1}  # the first stands at the start
    for word, times in words_made.items():
        assert (word in vocabulary) == (times >= min_frequency), word
    with pytest.raises(UserError, match="min_frequency"):
        train_vocabulary([text], 5000, min_frequency=0)


def test_several_processes_learn_the_same(
    monkeypatch: pytest.MonkeyPatch, generator: random.Random
):
    texts = [random_text(generator, 200) for _ in range(30)]
    expected = train_vocabulary(texts, 500)
    monkeypatch.setattr(training, "_TASK", 200)
    assert train_vocabulary(texts, 500) == expected
    assert train_vocabulary(texts, 500, workers=3) == expected


def test_an_error_in_another_process_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(training, "_TASK", 1)
    with pytest.raises(UserError, match="Character 1 "):
        train_vocabulary(["fine"] * 20 + ["n\ud800"], 300, workers=2)


@pytest.fixture
def learnt(tmp_path: Path) -> tuple[Path, Tokenizer]:
    """A folder with a vocabulary, and its tokenizer."""
    vocabulary, merges = train_vocabulary([STORY], 400, special_tokens=["<|poem|>"])
    write_vocabulary(tmp_path, vocabulary, merges)
    return tmp_path, Tokenizer(vocabulary, merges)


def texts_for_readers(generator: random.Random) -> list[str]:
    # The library `regex`, tiktoken and tokenizers may be of different versions of Unicode, but all
    # know these characters.
    return [STORY, *(random_text(generator) for _ in range(200)), f"a<|poem|>b{ENDOFTEXT}"]


def test_tiktoken_reads_a_learnt_vocabulary(
    learnt: tuple[Path, Tokenizer], generator: random.Random
):
    tiktoken = pytest.importorskip("tiktoken")
    load = pytest.importorskip("tiktoken.load")
    folder, tokenizer = learnt
    ranks = load.data_gym_to_mergeable_bpe_ranks(
        str(folder / "vocab.bpe"), str(without_special(folder, tokenizer))
    )
    encoding = tiktoken.Encoding(
        "learnt", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens=tokenizer.special
    )
    for text in texts_for_readers(generator):
        assert encoding.encode(text, allowed_special="all") == tokenizer.encode(text)


def without_special(folder: Path, tokenizer: Tokenizer) -> Path:
    """tiktoken takes GPT-2's encoder.json, of whose special tokens it knows only two by name."""
    path = folder / "ordinary.json"
    ordinary = {t: n for t, n in tokenizer.vocabulary.items() if t not in tokenizer.special}
    path.write_text(json.dumps(ordinary))
    return path


def test_tokenizers_reads_a_learnt_vocabulary(
    learnt: tuple[Path, Tokenizer], generator: random.Random
):
    tokenizers = pytest.importorskip("tokenizers")
    folder, tokenizer = learnt
    model = tokenizers.models.BPE.from_file(str(folder / "encoder.json"), str(folder / "vocab.bpe"))
    reader = tokenizers.Tokenizer(model)
    reader.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    reader.add_special_tokens(list(tokenizer.special))
    for text in texts_for_readers(generator):
        assert reader.encode(text).ids == tokenizer.encode(text)


def test_transformers_reads_a_learnt_vocabulary(
    learnt: tuple[Path, Tokenizer], generator: random.Random
):
    transformers = pytest.importorskip("transformers")
    folder, tokenizer = learnt
    (folder / "vocab.json").write_bytes((folder / "encoder.json").read_bytes())
    (folder / "merges.txt").write_bytes((folder / "vocab.bpe").read_bytes())
    reader = transformers.GPT2Tokenizer.from_pretrained(
        str(folder), additional_special_tokens=["<|poem|>"]
    )
    assert len(reader) == 400
    for text in texts_for_readers(generator):
        assert reader.encode(text) == tokenizer.encode(text)
