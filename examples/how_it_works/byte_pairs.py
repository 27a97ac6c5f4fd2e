"""Byte pair encoding: learn merges from a text, encode with them."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

Pair = tuple[str, str]
WORD = re.compile(r"'(?:[stmd]|re|ve|ll)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")


def split(text: str) -> list[str]:
    """Return the words of an ASCII text. GPT-2's files spell a space Ġ and a newline Ċ."""
    return [word.replace(" ", "Ġ").replace("\n", "Ċ") for word in WORD.findall(text)]


def merge(pieces: list[str], pair: Pair) -> list[str]:
    """Return the pieces with each occurrence of the pair joined, from left to right."""
    joined: list[str] = []
    for piece in pieces:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


def learn(text: str, count: int) -> list[Pair]:
    """Return up to `count` merges: each joins the pair that is the most frequent at that point."""
    words = Counter(split(text))
    pieces = {word: list(word) for word in words}
    merges: list[Pair] = []
    while len(merges) < count:
        pairs: Counter[Pair] = Counter()
        for word, times in words.items():
            for pair in pairwise(pieces[word]):
                pairs[pair] += times
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            break
        merges.append(best)
        pieces = {word: merge(pieces[word], best) for word in words}
    return merges


def encode(text: str, merges: list[Pair]) -> list[str]:
    """Return the tokens of a text: each word in characters, then merged in the order learned."""
    tokens: list[str] = []
    for word in split(text):
        pieces = list(word)
        for pair in merges:
            pieces = merge(pieces, pair)
        tokens += pieces
    return tokens


if __name__ == "__main__":
    learned = learn("the fox and the hare and the other fox", 6)
    print(*map("+".join, learned), encode("the fox sees another hen", learned), sep="\n")
