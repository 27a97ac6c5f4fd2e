"""Stories: the writer and the checker against each other, and against stories written by hand."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from gpt2.stories.grammar import CODES, fewest_stories, parse_story, write_stories
from gpt2.stories.tables import KINDS

BEDTIME = (
    "<|bedtime|> A sleepy mouse called Pepe lived on the farm. Before bed he wished to taste the "
    "fresh snow. But the grass was wet, and Pepe felt afraid. Then Pepe met a cricket, who lent "
    "him a pair of boots. Together they tasted the fresh snow until they were tired. At last the "
    "mouse lay down in dry leaves and slept. The cricket whispered: sleep well, Pepe."
)
ADVENTURE = (
    "<|adventure|> Far away, in the tall grass, lived Runa, a brave bear. An old map showed her "
    "the way to the ruby ring. One morning she took a raft, called a goose and set out. Before "
    "noon they came to a wide river. Runa thought for a while, and then she crossed it on the "
    "raft. There the goose found the ruby ring under a stone. Back home the bear and the goose "
    "gave a great feast."
)
FABLE = (
    "<|fable|> Everyone on the farm knew Ravi, the greedy duck. One spring Ravi and a lizard "
    'wanted to build a house. "All of the corn is mine," said Ravi to the lizard. The lizard only '
    "smiled and waited. The very next day the duck ate until nothing was left to plant. It was "
    "the lizard who shared some bread for Ravi. Moral: who takes everything ends with nothing."
)


def test_the_checker_reads_what_the_writer_writes() -> None:
    seed = random.randrange(10**6)
    for text in write_stories(300, seed):
        story = parse_story(text)
        assert story, f"seed {seed}: {text}"
        assert text.startswith(CODES[story.kind])
        assert story.facts["name"] in text


def test_every_template_and_every_row_can_be_written_and_read() -> None:
    """Texts of 1000 stories contain every word of the tables."""
    stories = list(map(parse_story, write_stories(1000, seed=1)))
    for kind, grammar in KINDS.items():
        found = [story.facts for story in stories if story and story.kind == kind]
        for row in itertools.chain.from_iterable(grammar.tables):
            assert any(row.items() <= facts.items() for facts in found), (kind, row)


def test_stories_are_short_and_many_and_of_all_kinds() -> None:
    stories = list(write_stories(2000, seed=2))
    assert len(set(stories)) == len(stories)
    assert fewest_stories() > 300_000
    lengths = [len(story.split()) - 1 for story in stories]
    assert min(lengths) >= 40
    assert 60 <= sum(lengths) / len(lengths) <= 80
    for code in CODES.values():
        assert sum(story.startswith(code) for story in stories) > 500
    assert not any(re.search(r"[{}\n]|  |\ba [aeiou]", story) for story in stories)


def test_a_seed_gives_the_same_stories_however_many_are_written() -> None:
    assert list(write_stories(5, 7)) == list(write_stories(50, 7))[:5]
    assert list(write_stories(5, 7)) != list(write_stories(5, 8))


@pytest.mark.parametrize(
    ("text", "kind", "facts"),
    [
        (BEDTIME, "bedtime", {"name": "Pepe", "she": "he", "animal": "mouse", "friend": "cricket"}),
        (ADVENTURE, "adventure", {"name": "Runa", "tool": "a raft", "treasure": "ruby ring"}),
        (FABLE, "fable", {"fault": "greedy", "animal": "duck", "deed": "shared some bread"}),
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
        (BEDTIME, "sleep well, Pepe", "sleep well, Otto"),  # another hero at the end
        (BEDTIME, "sleep well, Pepe.", "sleep well, Pepe"),  # unfinished
        (BEDTIME, "sleep well, Pepe.", "sleep well, Pepe. Good night, Pepe."),  # once too often
        (BEDTIME, "the mouse lay", "the bear lay"),  # another animal
        (BEDTIME, "The cricket whispered", "The crow whispered"),  # another friend
        (BEDTIME, "bed he wished", "bed she wished"),  # the wrong pronoun
        (BEDTIME, "lent him", "lent her"),  # the wrong pronoun inside a row
        (BEDTIME, "tasted the fresh snow", "counted the stars"),  # another wish is granted
        (BEDTIME, "lent him a pair of boots", "lit a small lamp"),  # helps against darkness
        (BEDTIME, "<|bedtime|>", "<|fable|>"),
        (BEDTIME, "<|bedtime|> ", ""),
        (BEDTIME, "<|bedtime|> ", "<|bedtime|>"),
        (BEDTIME, "Together they", "Together  they"),
        (BEDTIME, "But the grass was wet, and Pepe felt afraid. ", ""),  # a sentence is missing
        (ADVENTURE, "a wide river", "a steep cliff"),  # a raft does not help there
        (ADVENTURE, "found the ruby ring", "found the silver key"),
        (ADVENTURE, "crossed it on the raft", "crossed it on the lantern"),
        (ADVENTURE, "a brave bear", "a brave dragon"),  # no such animal
        (FABLE, "who takes everything ends with nothing", "good advice costs nothing"),
        (FABLE, '"All of the corn is mine,"', '"The work can wait,"'),
        (FABLE, "The very next day", "A year later"),
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
