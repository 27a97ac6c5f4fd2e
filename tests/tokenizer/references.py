"""Slow and obvious twins of the tokenizer, and random text to compare them on."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter
from itertools import pairwise

# Text from several scripts, with what the cutting into words looks at: contractions, digits of
# other scripts, spaces of several kinds, combining marks, emoji joined by invisible characters.
ALPHABETS = [
    "abcdeinorst",
    "ABCXYZ",
    "0123456789",
    " ",
    "  \t\n\r",
    "\u00a0\u2003\u3000\u2028\u0085",
    "'.,!?-_#<|>`\u2019",
    "äéïñøßŒ",
    "абвгдеж",
    "αβγδεζη",
    "中文字符日本語",
    "กขคงจไำ่้",
    "עבריתשל",
    "٠١٢٣½²Ⅷ",
    "🚀🦙😶\u200d🌫\ufe0f🇰🇷",
    "\u0301\u0308\x00\x1c\x7f\ufeff",
]
# As openai/gpt-2 has it in src/encoder.py, for the library `regex`.
GPT2_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
PHRASES = ["'s", "'ll", "'ve", "'RE", " the", " lower", "<|endoftext|", "http://", "Ġ", "naïve"]


def random_text(generator: random.Random, most_runs: int = 30) -> str:
    """Runs of characters of one alphabet each, short as a rule."""
    runs = []
    for _ in range(generator.randrange(most_runs)):
        if generator.random() < 0.2:
            runs.append(generator.choice(PHRASES))
        else:
            length = generator.choice([1, 1, 2, 3, 5, 8])
            runs.append("".join(generator.choices(generator.choice(ALPHABETS), k=length)))
    return "".join(runs)


def slow_words(text: str) -> list[str]:
    """GPT-2's cutting into words without regular expressions, one character after the other."""

    def kind(character: str) -> str:
        # Python counts four separators of old tapes as white space, Unicode does not.
        if character.isspace() and character not in "\x1c\x1d\x1e\x1f":
            return "space"
        category = unicodedata.category(character)[0]
        return {"L": "letter", "N": "number"}.get(category, "mark")

    def end_of_run(start: int) -> int:
        end = start
        while end < len(text) and kind(text[end]) == kind(text[start]):
            end += 1
        return end

    found = []
    place = 0
    while place < len(text):
        contraction = next(
            (c for c in ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d") if text.startswith(c, place)),
            None,
        )
        if contraction:
            end = place + len(contraction)
        elif kind(text[place]) != "space":
            end = end_of_run(place)
        else:
            end = end_of_run(place)
            is_last = end == len(text)
            if end - place > 1 and not is_last:
                end -= 1  # the last character of white space is left to the word after it
            elif text[place] == " " and not is_last and end - place == 1:
                end = end_of_run(place + 1)
        found.append(text[place:end])
        place = end
    return found


def slow_merge(tokens: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding of one word, as its description reads: round after round."""
    while True:
        candidates = [pair for pair in pairwise(tokens) if pair in ranks]
        if not candidates:
            return tokens
        best = min(candidates, key=ranks.__getitem__)
        tokens = joined_everywhere(tokens, best)


def joined_everywhere(tokens: list[str], pair: tuple[str, str]) -> list[str]:
    """The tokens with each occurrence of the pair made one, from left to right."""
    result = []
    place = 0
    while place < len(tokens):
        size = 2 if tuple(tokens[place : place + 2]) == pair else 1
        result.append("".join(tokens[place : place + size]))
        place += size
    return result


def ranked(merges: list[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """The rank of each merge: its place in the list."""
    return {pair: rank for rank, pair in enumerate(merges)}


def slow_training(words: Counter[str], n_merges: int) -> list[tuple[str, str]]:
    """The merges learnt from words (spelled as tokens of one byte), all pairs counted each time."""
    pieces = {word: list(word) for word in words}
    merges: list[tuple[str, str]] = []
    while len(merges) < n_merges:
        counts: Counter[tuple[str, str]] = Counter()
        for word, tokens in pieces.items():
            for pair in pairwise(tokens):
                counts[pair] += words[word]
        candidates = [pair for pair in counts if counts[pair] > 1]
        if not candidates:
            break
        best = min(candidates, key=lambda pair, counts=counts: (-counts[pair], pair))
        merges.append(best)
        pieces = {word: joined_everywhere(tokens, best) for word, tokens in pieces.items()}
    return merges
