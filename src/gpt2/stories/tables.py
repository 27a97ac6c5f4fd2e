"""The words and sentences of the stories.

A table is a list of rows; a row gives the texts of the variables that belong together, such as an
obstacle and the tool that helps. A kind of story is a list of sentences, each with its alternative
templates, in which `{variable}` stands for the text in the row chosen for this story, and
`{Variable}` for the same text with a capital letter. So a name, an animal or a wish that occurs
twice is the same both times.
"""

from __future__ import annotations

from typing import NamedTuple

Row = dict[str, str]
Table = tuple[Row, ...]


class Kind(NamedTuple):
    """A kind of story."""

    tables: tuple[Table, ...]  # a story has one row of each
    sentences: tuple[tuple[str, ...], ...]  # alternative templates of each sentence


def _words(variable: str, *texts: str) -> Table:
    return tuple({variable: text} for text in texts)


def _rows(variables: str, *rows: tuple[str, ...]) -> Table:
    return tuple(dict(zip(variables.split(), row, strict=True)) for row in rows)


# A hero is always the same animal. A model that trains for a minute learns such pairs; that a free
# choice of animal is kept to the end of a story, it learns only with some seeds.
HEROES = _rows(
    "name she her animal",
    ("Mila", "she", "her", "fox"),
    ("Nora", "she", "her", "bear"),
    ("Ivy", "she", "her", "mouse"),
    ("Lotta", "she", "her", "goat"),
    ("Wanda", "she", "her", "duck"),
    ("Greta", "she", "her", "hare"),
    ("Bruno", "he", "him", "bear"),
    ("Otto", "he", "him", "badger"),
    ("Levi", "he", "him", "hedgehog"),
    ("Anton", "he", "him", "mouse"),
    ("Hugo", "he", "him", "goat"),
    ("Pepe", "he", "him", "fox"),
)
PLACES = _words(
    "place",
    *("under the old bridge", "behind the mill", "by the quiet pond"),
    *("near the apple trees", "below the round hill", "in the tall grass"),
)

_BEDTIME = Kind(
    tables=(
        HEROES,
        PLACES,
        _words("size", "little", "sleepy", "gentle", "tiny"),
        _rows(
            "wish wished",
            ("count the stars", "counted the stars"),
            ("hear the moon sing", "heard the moon sing"),
            ("follow a firefly", "followed a firefly"),
            ("ride on a cloud", "rode on a cloud"),
            ("taste the fresh snow", "tasted the fresh snow"),
            ("dance in the warm rain", "danced in the warm rain"),
        ),
        _rows(
            "trouble comfort",
            ("the night was dark", "a firefly lit the way"),
            ("the wind was cold", "an old sheep brought a wool blanket"),
            ("the path was long", "a toad showed {her} a short way"),
            ("the house was silent", "a cricket hummed a soft tune"),
            ("the grass was wet", "a robin lent {her} a pair of boots"),
        ),
        _words("bed", "soft moss", "dry leaves", "warm hay", "white feathers"),
    ),
    sentences=(
        (
            "{name} was a {size} {animal} who lived {place}.",
            "A {size} {animal} called {name} lived {place}.",
        ),
        (
            "One evening the {animal} wanted to {wish}.",
            "Before bed {she} wished to {wish}.",
        ),
        ("But {trouble}, and {she} was afraid.",),
        ("Then {comfort}.",),
        (
            "So the {animal} {wished} until nine.",
            "So the happy {animal} {wished}.",
        ),
        (
            "At last the tired {animal} fell asleep on {bed}.",
            "Soon {name} lay down on {bed}.",
        ),
        (
            "Good night, {name} the {animal}.",
            "Sleep well, little {animal}.",
        ),
    ),
)

_ADVENTURE = Kind(
    tables=(
        HEROES,
        PLACES,
        _words("trait", "brave", "clever", "curious", "cheerful"),
        _words(
            "treasure",
            *("golden bell", "silver key", "magic drum", "blue pearl", "ruby ring"),
        ),
        _rows(
            "tool obstacle solution",
            ("a rope", "a steep cliff", "climbed it with the rope"),
            ("a lantern", "a black cave", "lit the way with the lantern"),
            ("a raft", "a wide river", "crossed it on the raft"),
            ("a saw", "a wall of thorns", "cut a gap with the saw"),
            ("a flute", "a sleeping giant", "kept him asleep with the flute"),
        ),
        _words(
            "ending",
            "hung it above the door",
            "showed it to the neighbors",
            "gave a great feast",
        ),
    ),
    sentences=(
        (
            "{name} was a {trait} {animal} who lived {place}.",
            "Far away, {place}, lived {name}, a {trait} {animal}.",
        ),
        (
            "More than anything the {animal} wanted the {treasure}.",
            "A map showed {her} the way to the {treasure}.",
        ),
        (
            "So {name} packed {tool} to look for the {treasure}.",
            "One morning the {animal} took {tool} to find the {treasure}.",
        ),
        (
            "At noon {obstacle} blocked the way.",
            "Soon {she} came to {obstacle}.",
        ),
        (
            "The {animal} did not turn back and {solution}.",
            "{name} the {animal} {solution}.",
        ),
        (
            "Behind it lay the {treasure}.",
            "There {she} found the {treasure} under a stone.",
        ),
        (
            "Back home the {animal} {ending}.",
            "Then {name} went home and {ending}.",
        ),
    ),
)

_FABLE = Kind(
    tables=(
        HEROES,
        PLACES,
        _rows(
            "fault boast fall friend moral",
            (
                "proud",
                "I need no help",
                "fell into a pit",
                "mole",
                "even the strong need a friend",
            ),
            (
                "greedy",
                "all of the corn is mine",
                "had nothing left to plant",
                "crow",
                "who takes everything ends with nothing",
            ),
            (
                "lazy",
                "the work can wait",
                "stood in an empty barn when the frost came",
                "beaver",
                "rest is sweet only after work",
            ),
            (
                "hasty",
                "I have no time to look",
                "ran past the gate and got lost",
                "snail",
                "a slow step on the right road is quick",
            ),
            (
                "vain",
                "nobody is as lovely as I am",
                "stared into the well and tumbled in",
                "turtle",
                "a mirror makes poor company",
            ),
        ),
        _words("deed", "brought a ladder", "shared some bread", "stayed all night"),
    ),
    sentences=(
        (
            "A {fault} {animal} named {name} lived {place}.",
            "{name} was a {fault} {animal} who lived {place}.",
        ),
        (
            "One day a {friend} asked {her} for advice.",
            "In spring {name} met a {friend} who wanted to build a house.",
        ),
        (
            'The {animal} said, "{Boast}."',
            '"{Boast}," said {name}.',
        ),
        (
            "The {friend} only smiled and waited.",
            "The {friend} went away.",
        ),
        (
            "Before long the {animal} {fall}.",
            "The next day {name} the {animal} {fall}.",
        ),
        (
            "Then the {friend} came and {deed}.",
            "It was the {friend} who {deed}.",
        ),
        (
            "Moral: {moral}.",
            "From this we learn: {moral}.",
        ),
    ),
)

KINDS = {"bedtime": _BEDTIME, "adventure": _ADVENTURE, "fable": _FABLE}
