"""Files of prompts, and few-shot templates that put examples before each prompt."""

from __future__ import annotations

import dataclasses
import json
import string
from collections.abc import Iterator, Mapping, Sequence

from gpt2.errors import UserError, quoted

SEPARATOR = "---"  # a line of it separates prompts of several lines


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt of a file.

    Attributes:
        number: its number in the file, from 1.
        fields: "prompt", or the fields of a JSON record.
    """

    number: int
    fields: Mapping[str, str]

    @property
    def text(self) -> str:
        """The prompt itself; empty if the record has no such field."""
        return self.fields.get("prompt", "")


def read_prompts(text: str, name: str) -> Iterator[Prompt | UserError]:
    """Yield the prompts in the content of a file, and an error for each record that is invalid.

    A content that begins with { has a JSON object in each line. One with lines of --- has prompts
    of several lines between them. Any other has a prompt in each line. Blank prompts are skipped,
    except that {"prompt": ""} asks for a sample without a prompt.

    Args:
        name: of the file, for the errors.
    """
    lines = text.split("\n")  # splitlines would split at other characters, too
    if text.lstrip().startswith("{"):
        yield from _json_lines(lines, name)
        return
    if SEPARATOR in (line.rstrip() for line in lines):
        blocks: list[list[str]] = [[]]
        for line in lines:
            if line.rstrip() == SEPARATOR:
                blocks.append([])
            else:
                blocks[-1].append(line)
        lines = ["\n".join(block).strip("\n") for block in blocks]
    prompts = (line for line in lines if line.strip())
    for number, prompt in enumerate(prompts, start=1):
        yield Prompt(number, {"prompt": prompt})


def _json_lines(lines: Sequence[str], name: str) -> Iterator[Prompt | UserError]:
    number = 0
    for line_number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        number += 1
        where = f"{name} line {line_number}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield UserError(f"{where}: invalid JSON ({error}). This line is skipped.")
            continue
        if not isinstance(fields, dict) or not all(
            isinstance(value, (str, int, float)) for value in fields.values()
        ):
            yield UserError(
                f'{where}: not a JSON object of strings such as {{"prompt": "..."}}. This line is '
                "skipped."
            )
            continue
        yield Prompt(number, {key: str(value) for key, value in fields.items()})


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
                    f"Example {example.number} has no field {missing[0]!r}, which the template "
                    "needs."
                )
            self._examples.append(self._fill_in(example))

    def fill_in(self, prompt: Prompt) -> str:
        """Return the examples and the prompt, with blank lines between them."""
        return "\n\n".join([*self._examples, self._fill_in(prompt)])

    def _fill_in(self, prompt: Prompt) -> str:
        """Return the template up to the first field that the prompt does not have."""
        fields = dict(prompt.fields)
        if not any(name in fields for name in self._names) and "prompt" in fields:
            fields[self._names[0]] = fields["prompt"]  # a plain line fills in the first field
        filled = ""
        for text, field in self._parts:
            filled += text
            if field is not None:
                if field not in fields:
                    return filled.rstrip(" ")
                filled += fields[field]
        return filled
