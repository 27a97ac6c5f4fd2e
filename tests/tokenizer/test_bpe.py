"""Text to ids and back."""

from __future__ import annotations

import itertools
import json
import pickle
import random
import subprocess
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gpt2.errors import UserError
from gpt2.tokenizer import ENDOFTEXT, Tokenizer, bpe
from gpt2.tokenizer.bpe import _WordCache
from gpt2.tokenizer.vocabulary import CHARACTER_OF_BYTE, spelled, token_bytes
from tests.tokenizer.references import GPT2_PATTERN, random_text, ranked, slow_merge, slow_words

SOURCES = Path(__file__).resolve().parents[2] / "src"
BYTES = list(CHARACTER_OF_BYTE.values())


def numbered(tokens: list[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(tokens)}


# A vocabulary for hand-worked examples; Ġ is a space.
MERGES = [("l", "o"), ("e", "r"), ("lo", "w"), ("Ġ", "low"), ("low", "er")]
TOKENS = ["Ġ", "e", "l", "n", "o", "r", "w", "er", "low", "Ġlow", "lower"]
SMALL = Tokenizer(numbered(TOKENS), MERGES)


def test_merges_apply_in_their_order_as_worked_by_hand():
    # l o w e r -> lo w e r -> lo w er -> low er -> lower
    assert SMALL.encode("lower") == [10]
    # Ġ l o w e r -> ... -> Ġ low er -> Ġlow er, as "Ġ low" stands before "low er".
    assert SMALL.encode(" lower") == [9, 7]
    # n e w has no merges, and words do not reach into each other.
    assert SMALL.encode("new low") == [3, 1, 6, 9]


def test_a_merge_is_made_everywhere_in_a_word_before_the_next():
    # "abc a" stands first, but "abc" comes to be by the last merge, in both halves at once:
    # a b c a b c -> a bc a bc -> abc abc. Place by place it would be "abca bc".
    merges = [("abc", "a"), ("b", "c"), ("a", "bc")]
    tokenizer = Tokenizer(numbered(["a", "b", "c", "bc", "abc", "abca"]), merges)
    assert tokenizer.encode("abcabc") == [4, 4]


def test_overlapping_places_of_a_merge_are_taken_from_the_left():
    tokenizer = Tokenizer(numbered(["a", "aa"]), [("a", "a")])
    assert tokenizer.encode("aaa") == [1, 0]
    assert tokenizer.encode("aaaa") == [1, 1]


def test_a_pair_listed_twice_has_its_last_rank_as_in_the_original():
    merges = [("a", "b"), ("b", "c"), ("a", "b")]
    tokenizer = Tokenizer(numbered(["a", "b", "c", "ab", "bc"]), merges)
    assert tokenizer.encode("abc") == [0, 4]


def test_merges_apply_even_if_the_vocabulary_lacks_what_they_make():
    tokenizer = Tokenizer(numbered(["a", "b", "c", "abc"]), [("a", "b"), ("ab", "c")])
    assert tokenizer.encode("abc") == [3]
    with pytest.raises(UserError, match="no token 'ab'"):
        tokenizer.encode("ab")


def test_odd_lists_of_merges_equal_the_slow_twin(generator: random.Random):
    # Merges in any order, before those that make their parts, and several ways to one token.
    strings = ["".join(s) for size in (1, 2, 3) for s in itertools.product("ab", repeat=size)]
    every_token = ["".join(s) for size in range(1, 7) for s in itertools.product("ab", repeat=size)]
    vocabulary = numbered(every_token)
    for _ in range(300):
        merges = [
            (generator.choice(strings), generator.choice(strings))
            for _ in range(generator.randrange(30))
        ]
        tokenizer = Tokenizer(vocabulary, merges)
        for length in (1, 2, 3, 5, 10, 100):
            word = "".join(generator.choices("ab", k=length))
            expected = [vocabulary[token] for token in slow_merge(list(word), ranked(merges))]
            assert tokenizer.encode(word) == expected, (word, merges)


def test_published_vectors(gpt2_tokenizer: Tokenizer, shared_data: Path):
    vectors = json.loads((shared_data / "gpt2" / "tokenizer_vectors.json").read_text("utf-8"))
    assert len(vectors) > 50
    for vector in vectors:
        assert gpt2_tokenizer.encode(vector["text"]) == vector["ids"], vector["text"]
        assert gpt2_tokenizer.decode(vector["ids"]) == vector["text"]


def test_random_text_has_the_ids_of_the_slow_twin(
    gpt2_tokenizer: Tokenizer, generator: random.Random
):
    ranks = ranked(gpt2_tokenizer.merges)
    for _ in range(300):
        text = random_text(generator)
        words = [list(spelled(word)) for word in slow_words(text)]
        tokens = [token for word in words for token in slow_merge(word, ranks)]
        ids = [gpt2_tokenizer.vocabulary[token] for token in tokens]
        assert gpt2_tokenizer.encode(text, legacy_endoftext=True) == ids


@pytest.mark.parametrize("letters", ["a", "ab", "abcdefghijklmnopqrstuvwxyz", "中文字日本語"])
def test_long_words_have_the_ids_of_the_slow_twin(
    gpt2_tokenizer: Tokenizer, generator: random.Random, letters: str
):
    word = "".join(generator.choices(letters, k=1500))
    tokens = slow_merge(list(spelled(word)), ranked(gpt2_tokenizer.merges))
    assert gpt2_tokenizer.encode(word) == [gpt2_tokenizer.vocabulary[t] for t in tokens]


def test_words_of_a_million_characters_are_encoded(
    gpt2_tokenizer: Tokenizer, generator: random.Random
):
    # With a cost that grows with the square of the length, this would not end.
    assert gpt2_tokenizer.encode(" " * 1_000_000) == [220] * 1_000_000
    word = "".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=1_000_000))
    ids = gpt2_tokenizer.encode(word)
    assert len(ids) < 700_000
    assert gpt2_tokenizer.decode(ids) == word


def test_random_text_comes_back_as_it_was(gpt2_tokenizer: Tokenizer, generator: random.Random):
    every_byte = Tokenizer(numbered(BYTES), [])
    for _ in range(300):
        text = random_text(generator) + chr(generator.choice([*range(0xD800), 0x10FFFF]))
        assert gpt2_tokenizer.decode(gpt2_tokenizer.encode(text)) == text
        assert every_byte.decode(every_byte.encode(text)) == text
        assert gpt2_tokenizer.decode_bytes(gpt2_tokenizer.encode(text)) == text.encode("utf-8")


def test_random_text_has_the_ids_of_tiktoken(gpt2_tokenizer: Tokenizer, generator: random.Random):
    tiktoken = pytest.importorskip("tiktoken")
    ranks = {token_bytes(token): number for token, number in gpt2_tokenizer.vocabulary.items()}
    special = {ENDOFTEXT: ranks.pop(ENDOFTEXT.encode())}
    reference = tiktoken.Encoding(
        "gpt2", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens=special
    )
    # What Unicode knows for long: two libraries may be of different versions of it.
    known = [chr(c) for c in range(0x3FFFF) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]
    for _ in range(100):
        pieces = (random_text(generator), "".join(generator.choices(known, k=30)), ENDOFTEXT)
        text = "".join(generator.choices(pieces, k=10))
        ids = reference.encode(text, allowed_special="all")
        assert gpt2_tokenizer.encode(text) == ids
        assert gpt2_tokenizer.encode_array(text).tolist() == ids


def test_many_different_words_at_once_have_the_ids_of_the_slow_twin(
    gpt2_tokenizer: Tokenizer, generator: random.Random
):
    # Short and long ones, and none that the tokenizer remembers.
    sizes = [*range(1, 40), 127, 128, 129, 200]
    some_words = [
        "".join(generator.choices("aeinorst\u00e9", k=generator.choice(sizes))) for _ in range(2000)
    ]
    ranks = ranked(gpt2_tokenizer.merges)
    tokens = [
        token for word in some_words for token in slow_merge(list(spelled(f" {word}")), ranks)
    ]
    text = "".join(f" {word}" for word in some_words)
    assert gpt2_tokenizer.encode(text) == [gpt2_tokenizer.vocabulary[token] for token in tokens]


@pytest.mark.parametrize("limit", ["most_words", "most_characters"])
def test_the_memory_for_words_is_bounded_and_changes_nothing(
    gpt2_tokenizer: Tokenizer,
    generator: random.Random,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
):
    tokenizer = Tokenizer(gpt2_tokenizer.vocabulary, gpt2_tokenizer.merges)
    monkeypatch.setattr(_WordCache, limit, 20)
    sizes = []
    for _ in range(50):
        text = random_text(generator)
        before = len(tokenizer._cache)
        assert tokenizer.encode(text) == gpt2_tokenizer.encode(text)
        sizes.append((before, len(tokenizer._cache), len(slow_words(text)) + 2))
    assert all(after <= before + new for before, after, new in sizes)
    # Whatever is above the limit is forgotten before the next text.
    assert all(after <= new for before, after, new in sizes if before > 22)
    assert any(before > 22 for before, _, _ in sizes)


def test_a_text_that_cannot_be_encoded_leaves_the_others_as_they_were():
    tokenizer = Tokenizer(numbered(TOKENS), MERGES)
    assert tokenizer.encode("lower") == [10]
    for _ in range(2):
        with pytest.raises(UserError, match="no token 'x', which the word ' wxw' needs"):
            tokenizer.encode("new low wxw lower")
    assert tokenizer.encode("lower low") == [10, 9]


@pytest.mark.parametrize("legacy", [False, True])
def test_several_texts_at_once_have_the_ids_of_each(
    gpt2_tokenizer: Tokenizer,
    generator: random.Random,
    monkeypatch: pytest.MonkeyPatch,
    legacy: bool,
):
    monkeypatch.setattr(bpe, "_BATCH", 50)
    texts = ["", "one", "", "", ENDOFTEXT, *(random_text(generator) for _ in range(100)), ""]
    arrays = gpt2_tokenizer.encode_arrays(texts, legacy_endoftext=legacy)
    assert [array.tolist() for array in arrays] == [
        gpt2_tokenizer.encode(text, legacy_endoftext=legacy) for text in texts
    ]
    assert all(array.dtype == np.int32 for array in arrays)
    assert gpt2_tokenizer.encode_arrays([]) == []


def test_several_threads_may_use_one_tokenizer(gpt2_tokenizer: Tokenizer, generator: random.Random):
    tokenizer = Tokenizer(gpt2_tokenizer.vocabulary, gpt2_tokenizer.merges)
    texts = [random_text(generator, 200) for _ in range(100)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(tokenizer.encode, texts * 3))
    assert results == [gpt2_tokenizer.encode(text) for text in texts] * 3


def test_endoftext_is_one_token(gpt2_tokenizer: Tokenizer):
    assert gpt2_tokenizer.endoftext == 50256
    assert gpt2_tokenizer.encode("<|endoftext|>") == [50256]
    hello, world = gpt2_tokenizer.encode("Hello."), gpt2_tokenizer.encode(" world  ")
    assert gpt2_tokenizer.encode("Hello.<|endoftext|><|endoftext|> world  <|endoftext|>") == [
        *hello,
        50256,
        50256,
        *world,
        50256,
    ]
    assert gpt2_tokenizer.decode([50256]) == "<|endoftext|>"
    # Nearly is not the same.
    assert 50256 not in gpt2_tokenizer.encode("<|endoftext| ><|EndOfText|>")


def test_endoftext_has_the_id_that_its_vocabulary_gives_it():
    tokenizer = Tokenizer(numbered([ENDOFTEXT, "a", "b"]), [])
    assert tokenizer.endoftext == 0
    assert tokenizer.encode("ab<|endoftext|>b") == [1, 2, 0, 2]


def test_legacy_endoftext_is_ordinary_text_as_in_2019(gpt2_tokenizer: Tokenizer):
    seven = [27, 91, 437, 1659, 5239, 91, 29]
    assert gpt2_tokenizer.encode("<|endoftext|>", legacy_endoftext=True) == seven
    # After a full stop, ".<" is one word, and one token.
    assert gpt2_tokenizer.encode(".<|endoftext|>", legacy_endoftext=True) == [29847, *seven[1:]]
    assert gpt2_tokenizer.decode(seven) == "<|endoftext|>"


def test_special_tokens_are_found_in_a_text_wherever_they_stand():
    names = ["<|a|>", "<|a|b|>", "<|poem|>", "<|0|>", "<|" + spelled("стих") + "|>"]
    tokenizer = Tokenizer(numbered([*names, *BYTES]), [("a", "b")])
    assert tokenizer.special == {"<|a|>": 0, "<|poem|>": 2, "<|0|>": 3, "<|стих|>": 4}
    space = tokenizer.vocabulary["Ġ"]
    text = "<|poem|><|0|> <|стих|><|a|><|poem"
    *ids, opening, bar, p, o, e, m = tokenizer.encode(text)
    assert ids == [2, 3, space, 4, 0]
    assert tokenizer.decode([*ids, opening, bar, p, o, e, m]) == text
    # Only <|endoftext|> was ordinary text in 2019.
    assert tokenizer.encode("<|0|>", legacy_endoftext=True) == [3]


@pytest.mark.parametrize("token", ["<pad>", "hello", "<||>", "<| |>", "<|!|>", "<|a b|>", "[MASK]"])
def test_other_tokens_that_no_merges_make_are_never_encoded(token: str):
    tokenizer = Tokenizer(numbered([*BYTES, token]), [])
    assert 256 not in tokenizer.encode(token)


def test_without_such_a_token_endoftext_is_ordinary_text():
    tokenizer = Tokenizer(numbered(BYTES), [])
    assert tokenizer.endoftext is None
    assert tokenizer.encode("<|endoftext|>") == [BYTES.index(letter) for letter in "<|endoftext|>"]


def test_the_toy_checkpoints_vocabulary(shared_data: Path):
    toy = Tokenizer.load(shared_data / "toy-checkpoint")
    assert toy.endoftext is None
    # The ids are those of GPT-2 for the same words, but for the last, which the toy renames.
    assert toy.encode("Power, give me more power!") == [13434, 11, 1577, 502, 517, 1176, 0]
    assert toy.decode([13434, 11, 1577, 502, 517, 1176, 0]) == "Power, give me more power!"


def test_decoding_never_fails(gpt2_tokenizer: Tokenizer):
    # The llama of the published vectors is four bytes in three tokens.
    assert gpt2_tokenizer.decode([12520, 99, 247]) == " 🦙"
    assert gpt2_tokenizer.decode([12520, 99]) == " \ufffd"
    assert gpt2_tokenizer.decode([247, 15496]) == "\ufffdHello"
    assert gpt2_tokenizer.decode([50257, 15496, -1]) == "\ufffdHello\ufffd"
    assert gpt2_tokenizer.decode([]) == ""
    assert gpt2_tokenizer.decode(iter([15496])) == "Hello"


def test_tokens_with_characters_that_stand_for_no_byte_decode_to_themselves():
    foreign = Tokenizer({"中": 0, "a b": 1, "\ud800": 2, "Ġc": 3}, [])
    assert foreign.decode([0, 1, 3]) == "中a b c"
    assert set(foreign.decode([2])) == {"\ufffd"}


def test_a_piece_without_a_token_is_named(shared_data: Path):
    toy = Tokenizer.load(shared_data / "toy-checkpoint")
    with pytest.raises(UserError, match=r"no token '\.', which the word '\.'"):
        toy.encode("Power.")
    with pytest.raises(UserError, match="no token '<'"):
        toy.encode("<|endoftext|>")


def test_the_message_about_a_very_long_word_is_short():
    with pytest.raises(UserError) as raised:
        SMALL.encode("x" * 100_000)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("legacy", [False, True])
def test_half_a_character_is_named_with_its_place_in_the_whole_text(
    gpt2_tokenizer: Tokenizer, legacy: bool
):
    with pytest.raises(UserError, match="Character 15 "):
        gpt2_tokenizer.encode("é <|endoftext|>\ud83d", legacy_endoftext=legacy)


def test_a_tokenizer_can_be_sent_to_another_process(gpt2_tokenizer: Tokenizer):
    copy = pickle.loads(pickle.dumps(gpt2_tokenizer))
    text = "a copy's own ids<|endoftext|>"
    assert copy.encode(text) == gpt2_tokenizer.encode(text)
    assert copy.decode(copy.encode(text)) == text


def test_a_copy_does_not_merge_known_words_again(
    gpt2_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
):
    known, other = "words that the original has seen", " unlikelihoods"
    expected = gpt2_tokenizer.encode(known)
    copy = pickle.loads(pickle.dumps(gpt2_tokenizer))
    merged: list[bytes] = []
    merge = copy.encode_pieces
    monkeypatch.setattr(copy._cache, "encode_pieces", lambda new: merged.extend(new) or merge(new))
    assert copy.encode(known) == expected
    assert merged == []
    assert copy.encode(known + other) == expected + gpt2_tokenizer.encode(other)
    assert merged == [other.encode()]


def test_the_tokenizer_does_not_wait_for_tensorflow():
    program = "import sys, gpt2.tokenizer; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=SOURCES, capture_output=True, text=True, check=True
    )
    modules = result.stdout.split()
    assert "gpt2.tokenizer.bpe" in modules
    assert "tensorflow" not in modules
