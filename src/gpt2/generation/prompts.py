"""Reads files of prompts, and puts examples in front of them."""

from __future__ import annotations

import dataclasses
import json
import string
from collections.abc import Iterator, Mapping, Sequence

from gpt2.errors import UserError

BLOCK = "---"  # a line of it stands between prompts of several lines


@dataclasses.dataclass(frozen=True)
class Prompt:
    """One prompt of a file."""

    number: int  # counted from 1
    fields: Mapping[str, str]  # "prompt", or whatever a line of JSON names

    @property
    def text(self) -> str:
        """The prompt itself."""
        return self.fields.get("prompt", "")


def read_prompts(text: str, name: str) -> Iterator[Prompt | UserError]:
    """The prompts in a file's text, and what is wrong with those that cannot be used.

    A text that begins with { has an object of JSON in each line; one with lines of --- has prompts
    of several lines between them; any other has a prompt in each line. Empty ones are passed over
    but for JSON, where {"prompt": ""} asks for a text without a prompt.

    Args:
        name: of the file, for the errors.
    """
    lines = text.split("\n")  # not splitlines, for which a text may hold more ends of lines
    if text.lstrip().startswith("{"):
        yield from _json_lines(lines, name)
        return
    if BLOCK in (line.rstrip() for line in lines):
        blocks: list[list[str]] = [[]]
        for line in lines:
            if line.rstrip() == BLOCK:
                blocks.append([])
            else:
                blocks[-1].append(line)
        lines = ["\n".join(block).strip("\n") for block in blocks]
    prompts = (line for line in lines if line.strip())
    for number, prompt in enumerate(prompts, start=1):
        yield Prompt(number, {"prompt": prompt})


def _json_lines(lines: Sequence[str], name: str) -> Iterator[Prompt | UserError]:
    number = 0
    for place, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        number += 1
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield UserError(f"{name}, line {place}: this is not JSON ({error}); it is left out.")
            continue
        if not isinstance(fields, dict) or not all(
            isinstance(value, (str, int, float)) for value in fields.values()
        ):
            yield UserError(
                f'{name}, line {place}: this is not an object of texts such as {{"prompt": "..."}}'
                "; it is left out."
            )
            continue
        yield Prompt(number, {key: str(value) for key, value in fields.items()})


class Template:
    """Few-shot prompts: examples filled in whole, then the question up to where its answer goes.

    For example "Q: {question}\\nA: {answer}" with the example question "1+1", answer "2", and the
    question "2+2" makes

        Q: 1+1
        A: 2

        Q: 2+2
        A:
    """

    def __init__(self, template: str, examples: Sequence[Prompt]):
        """Take in the template and its examples.

        Raises:
            UserError: the template has no field or unclear ones, or an example lacks a field.
        """
        try:
            self._parts = [
                (text, field) for text, field, _, _ in string.Formatter().parse(template)
            ]
        except ValueError as error:
            raise UserError(f"The template {template!r} cannot be read: {error}.") from error
        self._names = [field for _, field in self._parts if field is not None]
        if not self._names:
            raise UserError(f"The template {template!r} has no {{field}} to fill in.")
        self._examples = []
        for example in examples:
            missing = [name for name in self._names if name not in example.fields]
            if missing:
                raise UserError(f"Example {example.number} has no {missing[0]!r} for the template.")
            self._examples.append(self.fill(example))

    def fill(self, prompt: Prompt) -> str:
        """The template with a prompt's fields, up to the first that the prompt does not have."""
        fields = dict(prompt.fields)
        if not any(name in fields for name in self._names) and "prompt" in fields:
            fields[self._names[0]] = fields["prompt"]  # a plain line is the first thing asked for
        filled = ""
        for text, field in self._parts:
            filled += text
            if field is not None:
                if field not in fields:
                    return filled.rstrip(" ")
                filled += fields[field]
        return filled

    def prompt(self, prompt: Prompt) -> str:
        """The examples and the question, an empty line between any two."""
        return "\n\n".join([*self._examples, self.fill(prompt)])
