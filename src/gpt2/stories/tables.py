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


_SHE = "Mila", "Nora", "Tessa", "Ivy", "Runa", "Lotta", "Pia", "Wanda", "Greta", "Suri"
_HE = "Bruno", "Otto", "Timo", "Levi", "Anton", "Hugo", "Pepe", "Ravi", "Oskar", "Jonas"
HEROES = _rows(
    "name she her",
    *((name, "she", "her") for name in _SHE),
    *((name, "he", "him") for name in _HE),
)
ANIMALS = _words(
    "animal",
    *("fox", "hare", "bear", "mouse", "badger", "beaver"),
    *("hedgehog", "squirrel", "goat", "duck", "donkey", "lamb"),
)
FRIENDS = _words("friend", "crow", "turtle", "snail", "goose", "toad", "lizard", "robin", "cricket")
PLACES = _words(
    "place",
    *("under the old bridge", "behind the mill", "by the quiet pond", "near the apple trees"),
    *("at the edge of the forest", "below the round hill", "in the tall grass", "on the farm"),
)

_BEDTIME = Kind(
    tables=(
        HEROES,
        ANIMALS,
        FRIENDS,
        PLACES,
        _words("size", "little", "sleepy", "gentle", "tiny"),
        _rows(
            "wish wished",
            ("count the stars", "counted the stars"),
            ("hear the moon sing", "heard the moon sing"),
            ("follow a firefly", "followed a firefly"),
            ("ride on a cloud", "rode on a cloud"),
            ("talk to the north wind", "talked to the north wind"),
            ("taste the fresh snow", "tasted the fresh snow"),
            ("dance in the warm rain", "danced in the warm rain"),
            ("paint a picture of the sun", "painted a picture of the sun"),
        ),
        _rows(
            "trouble comfort",
            ("the night was dark", "lit a small lamp"),
            ("the wind was cold", "brought a wool blanket"),
            ("the path was long", "knew a short way"),
            ("the house was silent", "hummed a soft tune"),
            ("the grass was wet", "lent {her} a pair of boots"),
            ("the door was stuck", "pushed it open"),
        ),
        _words("bed", "soft moss", "dry leaves", "warm hay", "white feathers"),
    ),
    sentences=(
        (
            "{name} was a {size} {animal} who lived {place}.",
            "A {size} {animal} called {name} lived {place}.",
            "Once a {size} {animal} lived {place}, and {name} was the name {she} had.",
        ),
        (
            "One evening {she} wanted to {wish}.",
            "Before bed {she} wished to {wish}.",
            "All day long {name} hoped to {wish}.",
        ),
        (
            "But {trouble}, and {name} felt afraid.",
            "But {trouble}, so {she} began to cry.",
        ),
        (
            "A kind {friend} came by and {comfort}.",
            "Then {name} met a {friend}, who {comfort}.",
        ),
        (
            "Together they {wished} until they were tired.",
            "So {name} and the {friend} {wished} and laughed.",
        ),
        (
            "At last the {animal} lay down in {bed} and slept.",
            "Soon {name} closed both eyes in a bed of {bed}.",
        ),
        (
            "Good night, {name}.",
            "Sleep well, little {animal}.",
            "The {friend} whispered: sleep well, {name}.",
        ),
    ),
)

_ADVENTURE = Kind(
    tables=(
        HEROES,
        ANIMALS,
        FRIENDS,
        PLACES,
        _words("trait", "brave", "clever", "curious", "cheerful"),
        _words(
            "treasure",
            *("golden bell", "silver key", "crystal egg", "lost crown"),
            *("magic drum", "blue pearl", "singing shell", "ruby ring"),
        ),
        _rows(
            "tool obstacle solution",
            ("a rope", "a steep cliff", "climbed it with the rope"),
            ("a lantern", "a black cave", "lit the way with the lantern"),
            ("a raft", "a wide river", "crossed it on the raft"),
            ("a saw", "a wall of thorns", "cut a gap with the saw"),
            ("a shovel", "a heap of snow", "dug through it with the shovel"),
            ("a flute", "a sleeping giant", "kept him asleep with the flute"),
        ),
        _rows(
            "ending",
            ("hung it above the door",),
            ("showed it to all the neighbors",),
            ("gave a great feast",),
            ("told the story every winter",),
        ),
    ),
    sentences=(
        (
            "{name} was a {trait} {animal} who lived {place}.",
            "There was a {trait} {animal} {place}, and everybody knew {name}.",
            "Far away, {place}, lived {name}, a {trait} {animal}.",
        ),
        (
            "{She} longed for the {treasure}.",
            "More than anything {she} wanted the {treasure}.",
            "An old map showed {her} the way to the {treasure}.",
        ),
        (
            "So {name} packed {tool} and left with a {friend}.",
            "One morning {she} took {tool}, called a {friend} and set out.",
        ),
        (
            "On the third day {obstacle} stopped them.",
            "Before noon they came to {obstacle}.",
        ),
        (
            "The {friend} wanted to turn back, but {name} {solution}.",
            "{name} thought for a while, and then {she} {solution}.",
        ),
        (
            "Behind it lay the {treasure}, bright as the morning.",
            "There the {friend} found the {treasure} under a stone.",
        ),
        (
            "Back home the {animal} and the {friend} {ending}.",
            "They came home and {ending}.",
        ),
    ),
)

_FABLE = Kind(
    tables=(
        HEROES,
        ANIMALS,
        FRIENDS,
        PLACES,
        _words("time", "One spring", "One summer", "One autumn", "One winter"),
        _rows(
            "fault boast fall moral",
            (
                "proud",
                "I need no help from anyone",
                "fell into a pit and called for help",
                "even the strong need a friend",
            ),
            (
                "greedy",
                "all of the corn is mine",
                "ate until nothing was left to plant",
                "who takes everything ends with nothing",
            ),
            (
                "lazy",
                "the work can wait",
                "had an empty barn when the frost came",
                "rest is sweet only after work",
            ),
            (
                "hasty",
                "I have no time to look",
                "ran past the gate and got lost",
                "a slow step on the right road is quick",
            ),
            (
                "vain",
                "nobody is as lovely as I am",
                "stared at the water and tumbled in",
                "a mirror makes poor company",
            ),
            (
                "stubborn",
                "I know the way myself",
                "walked in a circle until night",
                "good advice costs nothing",
            ),
        ),
        _rows(
            "deed",
            ("brought a ladder",),
            ("shared some bread",),
            ("fetched the others",),
            ("stayed all night",),
        ),
    ),
    sentences=(
        (
            "A {fault} {animal} named {name} lived {place}.",
            "{name} was a {fault} {animal} who lived {place}.",
            "Everyone {place} knew {name}, the {fault} {animal}.",
        ),
        (
            "{time} {she} met a {friend} and wished to be admired.",
            "{time} a {friend} asked {her} for advice.",
            "{time} {name} and a {friend} wanted to build a house.",
        ),
        (
            'The {animal} said, "{Boast}."',
            '"{Boast}," said {name} to the {friend}.',
        ),
        (
            "The {friend} only smiled and waited.",
            "The {friend} shook its head and went away.",
        ),
        (
            "Before long {name} {fall}.",
            "The very next day the {animal} {fall}.",
        ),
        (
            "Then the {friend} came and {deed}, and {name} was ashamed.",
            "It was the {friend} who {deed} for {name}.",
        ),
        (
            "Moral: {moral}.",
            "From this we learn: {moral}.",
        ),
    ),
)

KINDS = {"bedtime": _BEDTIME, "adventure": _ADVENTURE, "fable": _FABLE}
