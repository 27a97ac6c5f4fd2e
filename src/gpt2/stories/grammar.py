"""Write stories, and check whether a text is one, by the same tables.

The checker parses a text with the templates that the writer fills in, so the two cannot diverge.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence

from gpt2.stories.tables import KINDS, Row, Table

CODES = {kind: f"<|{kind}|>" for kind in KINDS}  # control codes, the first token of a story
_VARIABLE = re.compile(r"(\{\w+\})")


@dataclasses.dataclass(frozen=True)
class Story:
    """What a well-formed text says: its kind, and the rows of the tables that it uses."""

    kind: str
    facts: Mapping[str, str]  # the text of each variable


def write_stories(count: int, seed: int) -> Iterator[str]:
    """Yield stories, one line each, of all kinds in random order.

    Args:
        seed: the same seed gives the same stories.
    """
    choose = random.Random(seed).choice
    kinds = list(KINDS)
    for _ in range(count):
        kind = choose(kinds)
        facts: Row = {}
        for table in KINDS[kind].tables:
            facts |= choose(table)
        templates = map(choose, KINDS[kind].sentences)
        yield " ".join((CODES[kind], *(_filled(template, facts) for template in templates)))


def _filled(template: str, facts: Mapping[str, str]) -> str:
    """Return a template with the texts of its variables, which may have variables, too."""
    while "{" in template:
        template = _VARIABLE.sub(lambda found: _text(found[0], facts), template)
    return template


def _text(variable: str, facts: Mapping[str, str]) -> str:
    """Return the text of a variable such as `{she}`; of `{She}` with a capital letter."""
    text = facts[variable[1:-1].lower()]
    return text[0].upper() + text[1:] if variable[1].isupper() else text


def number_of_stories(kind: str) -> int:
    """Return the number of distinct stories with a control code.

    Of each choice of templates, only the tables count whose variables the templates mention.
    """
    total = 0
    for templates in itertools.product(*KINDS[kind].sentences):
        mentioned = set(map(str.lower, re.findall(r"\{(\w+)\}", " ".join(templates))))
        tables = (table for table in KINDS[kind].tables if not mentioned.isdisjoint(table[0]))
        total += math.prod(map(len, tables))
    return total


def parse_story(text: str) -> Story | None:
    """Return what a text says if it is a well-formed story, otherwise None.

    A well-formed story has a control code and then exactly the sentences of that kind, with the
    same hero, animal, wish and so on from beginning to end. White space around it is ignored.

    Example:
        >>> story = parse_story(next(write_stories(1, seed=1)))
        >>> story.kind, story.facts["name"]
        ('bedtime', 'Tessa')
    """
    text = text.strip()
    for kind, code in CODES.items():
        if text.startswith(code):
            grammar = KINDS[kind]
            tables = {variable: table for table in grammar.tables for variable in table[0]}
            facts = next(_parses(text[len(code) :], grammar.sentences, {}, tables), None)
            return None if facts is None else Story(kind, facts)
    return None


def _parses(
    text: str, sentences: Sequence[Sequence[str]], facts: Row, tables: Mapping[str, Table]
) -> Iterator[Row]:
    """Yield the facts of each way to read a text as these sentences.

    Args:
        facts: those that the sentences before have stated.
        tables: the table of each variable.
    """
    if not sentences:
        if not text:
            yield facts
        return
    for template in sentences[0]:
        for rest, stated in _prefixes(text, _VARIABLE.split(f" {template}"), facts, tables):
            yield from _parses(rest, sentences[1:], stated, tables)


def _prefixes(
    text: str, parts: Sequence[str], facts: Row, tables: Mapping[str, Table]
) -> Iterator[tuple[str, Row]]:
    """Yield what follows the parts of a template in a text, and the facts, for each way to read it.

    Args:
        parts: literal texts and variables.
    """
    if not parts:
        yield text, facts
        return
    part, *others = parts
    if not part.startswith("{"):
        if text.startswith(part):
            yield from _prefixes(text[len(part) :], others, facts, tables)
        return
    variable = part[1:-1].lower()
    for row in [{}] if variable in facts else tables[variable]:
        stated = facts | row
        expanded = _VARIABLE.split(_text(part, stated))
        yield from _prefixes(text, [*expanded, *others], stated, tables)
