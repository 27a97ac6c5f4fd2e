"""Files of prompts, and few-shot templates that put examples before each prompt."""

from __future__ import annotations

import dataclasses
import json
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpt2.checks import is_finite
from gpt2.errors import UserError, in_short, quoted
from gpt2.jsonl import Ambiguous, unique_fields

_LIST_OF_PROMPTS = re.compile(r'\s*\[\s*["{]')  # how one begins
SEPARATOR = "---"  # a line of it separates prompts of several lines


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt of a file.

    Attributes:
        number: its number in the file, from 1.
        fields: "prompt", or the fields of a JSON record.
        where: the file and the line or item, for messages.
    """

    number: int
    fields: Mapping[str, str]
    where: str = "prompt"

    @property
    def text(self) -> str:
        """The prompt itself.

        Raises:
            UserError: the record has no field "prompt".
        """
        if "prompt" not in self.fields:
            raise self.lacks("prompt")
        return self.fields["prompt"]

    def lacks(self, name: str) -> UserError:
        """Return the error for a record without a field, which names the fields that it has."""
        fields = ", ".join(map(quoted, self.fields)) or "none"
        return UserError(
            f"{self.where}: no field {name!r}; the fields are {fields}. Rename one, or name it in "
            "--template."
        )


def read_prompts(text: str, name: str) -> Iterator[Prompt | UserError]:
    """Yield the prompts in the content of a file, and an error for each record that is invalid.

    A JSON list has a string or an object for each prompt. A content that begins with { has a JSON
    object in each line. One with lines of --- has prompts of several lines between them. Any other
    has a prompt in each line. Blank prompts are skipped, except that {"prompt": ""} asks for a
    sample without a prompt.

    Args:
        text: newlines as line ends; see `gpt2.files.read_small_text`.
        name: of the file, for the errors.

    Raises:
        UserError: it begins like a JSON list of prompts, but is not valid JSON.
    """
    lines = text.split("\n")  # splitlines would split at other characters, too
    if (items := _json_list(text, name)) is not None:
        for number, item in enumerate(items, start=1):
            fields = {"prompt": item} if isinstance(item, str) else item
            yield _prompt(number, fields, f"{name} item {number}")
        return
    if text.lstrip().startswith("{"):
        yield from _json_lines(lines, name)
        return
    blocks = [(at, line) for at, line in enumerate(lines, start=1)]
    if SEPARATOR in (line.rstrip() for line in lines):
        blocks = list(_blocks(lines))
    prompts = ((at, block) for at, block in blocks if block.strip())
    for number, (at, prompt) in enumerate(prompts, start=1):
        yield Prompt(number, {"prompt": prompt}, f"{name} line {at}")


def _json_list(text: str, name: str) -> list[Any] | None:
    """Return the items of a JSON list of strings or objects, perhaps empty, None for other text.

    An object in several lines is a list of one. A text such as [1], which may be a prompt itself,
    is not a list of prompts.

    Raises:
        UserError: it begins like such a list, but is not valid JSON.
    """
    text = text.rstrip()
    if text.lstrip()[:1] not in ("[", "{"):
        return None
    try:
        items = json.loads(text, object_pairs_hook=unique_fields)
    except (ValueError, RecursionError) as error:
        # Lines that are lists of their own, ["A"] and ["B"], are prompts.
        if _LIST_OF_PROMPTS.match(text) and "Extra data" not in str(error):
            raise UserError(
                f"{name}: begins like a JSON list of prompts, but is not valid JSON "
                f"({in_short(error)}). Write it again; a plain prompt that begins so needs the "
                'form {"prompt": "..."}.'
            ) from error
        return None
    if isinstance(items, dict):
        return [items] if "\n" in text else None
    is_list = text.strip() == "[]" or any(isinstance(item, str | dict) for item in items)
    return items if is_list else None


def _blocks(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield the number of the first line and the text of each block between separators."""
    start = 0
    for at, line in enumerate([*lines, SEPARATOR]):
        if line.rstrip() == SEPARATOR:
            yield start + 1, "\n".join(lines[start:at]).strip("\n")
            start = at + 1


def _json_lines(lines: Sequence[str], name: str) -> Iterator[Prompt | UserError]:
    number = 0
    for line_number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        number += 1
        where = f"{name} line {line_number}"
        try:
            fields = json.loads(line, object_pairs_hook=unique_fields)
        except (ValueError, RecursionError) as error:
            yield UserError(f"{where}: invalid JSON ({error}).")
            continue
        yield _prompt(number, fields, where)


def _prompt(number: int, fields: object, where: str) -> Prompt | UserError:
    """Return the prompt of a JSON record, or the error if it is not a valid record."""
    if not isinstance(fields, dict):
        return UserError(f'{where}: not a JSON object of strings such as {{"prompt": "..."}}.')
    if isinstance(fields, Ambiguous):
        return UserError(f"{where}: {fields.problem}")
    for name, value in fields.items():
        if not isinstance(value, str) and not is_finite(value):
            return UserError(
                f"{where}: field {quoted(name)} is {in_short(json.dumps(value), 60)}; expected a "
                "string or a number."
            )
    return Prompt(number, {key: str(value) for key, value in fields.items()}, where)


class Template:
    """Few-shot prompts: examples with all fields filled in, then the prompt without its answer.

    Example:
        >>> examples = [Prompt(1, {"question": "1+1", "answer": "2"})]
        >>> template = Template("Q: {question}\\nA: {answer}", examples)
        >>> template.fill_in(Prompt(1, {"question": "2+2"}))
        'Q: 1+1\\nA: 2\\n\\nQ: 2+2\\nA:'
    """

    def __init__(self, template: str, examples: Sequence[Prompt]):
        """Parse the template and fill in the examples.

        Raises:
            UserError: the template is invalid or has no field, or an example lacks a field.
        """
        try:
            self._parts = [
                (text, field) for text, field, _, _ in string.Formatter().parse(template)
            ]
        except ValueError as error:
            raise UserError(f"Template {quoted(template)} is invalid: {error}.") from error
        self._names = [field for _, field in self._parts if field is not None]
        if not self._names:
            raise UserError(
                f"Template {quoted(template)} has no field. Use one such as {{prompt}}."
            )
        self._examples = []
        for example in examples:
            missing = [name for name in self._names if name not in example.fields]
            if missing:
                raise UserError(
                    f"{example.where}: no field {missing[0]!r}, which the template needs; the "
                    f"fields are {', '.join(map(quoted, example.fields)) or 'none'}. Give every "
                    "example all fields of the template."
                )
            self._examples.append(self._fill_in(example))

    def fill_in(self, prompt: Prompt) -> str:
        """Return the examples and the prompt, with blank lines between them.

        Raises:
            UserError: the prompt has nothing for the first field of the template.
        """
        return "\n\n".join([*self._examples, self._fill_in(prompt)])

    def _fill_in(self, prompt: Prompt) -> str:
        """Return the template up to the first field that the prompt does not have."""
        fields = dict(prompt.fields)
        if not any(name in fields for name in self._names) and "prompt" in fields:
            fields[self._names[0]] = fields["prompt"]  # a plain line fills in the first field
        if self._names[0] not in fields:
            raise prompt.lacks(self._names[0])
        filled = ""
        for text, field in self._parts:
            filled += text
            if field is not None:
                if field not in fields:
                    return filled.rstrip(" ")
                filled += fields[field]
        return filled
