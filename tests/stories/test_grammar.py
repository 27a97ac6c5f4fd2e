"""Stories: the writer and the checker against each other, and against stories written by hand."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from gpt2.stories.grammar import CODES, number_of_stories, parse_story, write_stories
from gpt2.stories.tables import KINDS

BEDTIME = (
    "<|bedtime|> A sleepy fox called Pepe lived behind the mill. Before bed he wished to taste "
    "the fresh snow. But the grass was wet, and he was afraid. Then a robin lent him a pair of "
    "boots. So the happy fox tasted the fresh snow. Soon Pepe lay down on dry leaves. Good "
    "night, Pepe the fox."
)
ADVENTURE = (
    "<|adventure|> Far away, in the tall grass, lived Nora, a brave bear. A map showed her "
    "the way to the ruby ring. One morning the bear took a raft to find the ruby ring. Soon "
    "she came to a wide river. Nora the bear crossed it on the raft. There she found the ruby ring "
    "under a stone. Then Nora went home and gave a great feast."
)
FABLE = (
    "<|fable|> Hugo was a greedy goat who lived behind the mill. In spring Hugo met a crow who "
    'wanted to build a house. "All of the corn is mine," said Hugo. The crow went away. The next '
    "day Hugo the goat had nothing left to plant. It was the crow who shared some bread. Moral: "
    "who takes everything ends with nothing."
)


def test_the_checker_reads_what_the_writer_writes() -> None:
    seed = random.randrange(10**6)
    for text in write_stories(300, seed):
        story = parse_story(text)
        assert story, f"seed {seed}: {text}"
        assert text.startswith(CODES[story.kind])
        assert story.facts["name"] in text


def test_every_template_and_every_row_can_be_written_and_read() -> None:
    stories = list(map(parse_story, write_stories(1000, seed=1)))
    for kind, grammar in KINDS.items():
        found = [story.facts for story in stories if story and story.kind == kind]
        for row in itertools.chain.from_iterable(grammar.tables):
            assert any(row.items() <= facts.items() for facts in found), (kind, row)


def test_stories_are_short_and_many_and_of_all_kinds() -> None:
    stories = list(write_stories(2000, seed=2))
    assert len(set(stories)) > 0.99 * len(stories)
    assert all(number_of_stories(kind) > 100_000 for kind in KINDS)
    lengths = [len(story.split()) - 1 for story in stories]
    assert min(lengths) >= 40
    assert max(lengths) <= 80
    for code in CODES.values():
        assert sum(story.startswith(code) for story in stories) > 500
    assert not any(re.search(r"[{}\n]|  |\ba [aeiou]", story) for story in stories)


def test_a_seed_gives_the_same_stories_however_many_are_written() -> None:
    assert list(write_stories(5, 7)) == list(write_stories(50, 7))[:5]
    assert list(write_stories(5, 7)) != list(write_stories(5, 8))


@pytest.mark.parametrize(
    ("text", "kind", "facts"),
    [
        (BEDTIME, "bedtime", {"name": "Pepe", "she": "he", "animal": "fox", "size": "sleepy"}),
        (ADVENTURE, "adventure", {"name": "Nora", "tool": "a raft", "treasure": "ruby ring"}),
        (FABLE, "fable", {"fault": "greedy", "animal": "goat", "friend": "crow"}),
    ],
    ids=["bedtime", "adventure", "fable"],
)
def test_stories_written_by_hand_are_read(text: str, kind: str, facts: dict[str, str]) -> None:
    for written in (text, f"\n{text} \n"):
        story = parse_story(written)
        assert story
        assert story.kind == kind
        assert facts.items() <= story.facts.items()


@pytest.mark.parametrize(
    ("good", "old", "new"),
    [
        (BEDTIME, "night, Pepe the", "night, Otto the"),  # another hero at the end
        (BEDTIME, "Pepe the fox.", "Pepe the fox"),  # unfinished
        (BEDTIME, "Pepe the fox.", "Pepe the fox. Sleep well, little fox."),  # once too often
        (BEDTIME, "happy fox", "happy bear"),  # another animal
        (BEDTIME, "Soon Pepe", "Soon Hugo"),  # another hero in the middle
        (BEDTIME, "bed he wished", "bed she wished"),  # the wrong pronoun
        (BEDTIME, "lent him", "lent her"),  # the wrong pronoun inside a row
        (BEDTIME, "tasted the fresh snow", "counted the stars"),  # another wish is granted
        (BEDTIME, "a robin lent him a pair of boots", "a firefly lit the way"),  # against darkness
        (BEDTIME, "<|bedtime|>", "<|fable|>"),
        (BEDTIME, "<|bedtime|> ", ""),
        (BEDTIME, "<|bedtime|> ", "<|bedtime|>"),
        (BEDTIME, "Then a robin", "Then  a robin"),
        (BEDTIME, "But the grass was wet, and he was afraid. ", ""),  # a sentence is missing
        (ADVENTURE, "a wide river", "a steep cliff"),  # a raft does not help there
        (ADVENTURE, "found the ruby ring", "found the silver key"),
        (ADVENTURE, "to find the ruby ring", "to find the blue pearl"),
        (ADVENTURE, "crossed it on the raft", "crossed it on the lantern"),
        (ADVENTURE, "a brave bear", "a brave dragon"),  # no such animal
        (FABLE, "who takes everything ends with nothing", "rest is sweet only after work"),
        (FABLE, '"All of the corn is mine,"', '"The work can wait,"'),
        (FABLE, "The crow went", "The snail went"),  # the friend of another fault
        (FABLE, "The next day", "A year later"),
    ],
)  # fmt: skip
def test_one_wrong_word_makes_a_story_malformed(good: str, old: str, new: str) -> None:
    assert good.count(old) == 1
    assert parse_story(good.replace(old, new)) is None


@pytest.mark.parametrize("text", ["", " ", "<|bedtime|>", "<|ballad|> " + BEDTIME, BEDTIME * 2])
def test_what_is_no_story_is_malformed(text: str) -> None:
    assert parse_story(text) is None


def test_stories_without_their_sentences_in_order_are_malformed() -> None:
    first, second, *others = BEDTIME.split(". ")
    swapped = first.replace("A sleepy", second + ". A sleepy") + ". " + ". ".join(others)
    assert parse_story(swapped) is None
