r"""Templates: how the fields of a record, or the messages of a conversation, become one text.

One language for training, prompts and chats. `Q: {question}\nA: {answer}` names the fields in the
order of the text; the last one is the completion, which the model learns to generate. A template of
the roles `{system}`, `{user}` and `{assistant}` also takes conversations of any length.
"""

from __future__ import annotations

import itertools
import json
import re
import string
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gpt2 import files
from gpt2.errors import UserError, in_short, quoted
from gpt2.jsonl import Ambiguous

TEMPLATE_FILE = "template.json"
SYSTEM, USER, ASSISTANT = ROLES = ("system", "user", "assistant")
PAIRS = "{prompt}{completion}"  # of records with these fields
PLAIN_CHAT = "System: {system}\nUser: {user}\nAssistant: {assistant}\n"
BETWEEN = "\n\n"  # between exchanges, if the template does not say how one ends

# The part of the text between two fields that belongs to the second one: a special token at the end
# of it, or else its last line that is not blank.
_OPENINGS = [re.compile(r"<\|[^|<>\s]+\|>\s*\Z"), re.compile(r"[^\n]*\s*\Z")]


class Span(NamedTuple):
    """A part of an example, tokenized by itself."""

    text: str
    completion: bool  # whether the model learns to generate it


class Message(NamedTuple):
    """The value of a field, or what one role says."""

    field: str
    text: str


def chat_template(special: Collection[str]) -> str:
    """Return the template of conversations: with special tokens if the vocabulary has them.

    Args:
        special: the texts of the special tokens.
    """
    if not {"<|user|>", "<|assistant|>"} <= set(special):
        return PLAIN_CHAT
    system = "<|system|>" if "<|system|>" in special else ""
    return f"{system}{{system}}<|user|>{{user}}<|assistant|>{{assistant}}"


class Template:
    r"""A parsed template.

    Attributes:
        text: the template.
        fields: the names of its fields, in their order.

    Example:
        >>> template = Template("Q: {question}\nA: {answer}")
        >>> template.spans([Message("question", "1+1"), Message("answer", "2")])
        [Span(text='Q: 1+1\nA:', completion=False), Span(text=' 2', completion=True)]
    """

    def __init__(self, text: str):
        r"""Parse a template.

        Args:
            text: names of fields in braces; {{ and }} stand for braces, \n for a newline.

        Raises:
            UserError: it is invalid, or has no field.
        """
        self.text = text.replace("\\n", "\n").replace("\\t", "\t")
        where = f"Template {quoted(text)}"
        try:
            parts = list(string.Formatter().parse(self.text))
        except ValueError as error:
            raise UserError(
                f"{where} is invalid: {in_short(error)}. Write fields as {{name}}, and braces as "
                "{{ and }}."
            ) from error
        self.fields: list[str] = []
        literals = [""]
        for literal, field, format_, conversion in parts:
            literals[-1] += literal
            if field is None:
                continue
            if not field or format_ or conversion:
                raise UserError(f"{where}: a field must be a name in braces, such as {{prompt}}.")
            if field in self.fields:
                raise UserError(f"{where} has the field {{{field}}} twice. Use it once.")
            self.fields.append(field)
            literals.append("")
        if not self.fields:
            raise UserError(f"{where} has no field. Use one such as {{prompt}}.")
        # Of each field: the text before it, and the text after it.
        self._openings, self._ends = [literals[0]], []
        for literal in literals[1:-1]:
            found = next(filter(None, (pattern.search(literal) for pattern in _OPENINGS)))
            self._ends.append(literal[: found.start()])
            self._openings.append(literal[found.start() :])
        self._ends.append(literals[-1])

    @property
    def completion(self) -> str:
        """The field that the model learns to generate: the last one."""
        return self.fields[-1]

    @property
    def is_chat(self) -> bool:
        """Whether the fields are roles, so that the template takes conversations."""
        return set(self.fields) <= set(ROLES) and self.fields[-2:] == [USER, ASSISTANT]

    @property
    def stop(self) -> tuple[str, ...]:
        """The texts that end a completion: its end, and the beginning of the next exchange."""
        found = [end] if (end := self._ends[-1].strip()) else []
        if opening := self._opening(self._first_of_exchange).strip():
            found.append(opening if opening.startswith("<|") else f"\n{opening}")
        return tuple(found)

    @property
    def _first_of_exchange(self) -> str:
        return next(field for field in self.fields if field != SYSTEM or len(self.fields) == 1)

    def spans(self, messages: Sequence[Message]) -> list[Span]:
        """Return the text of messages as prompts and completions in turn.

        A space before a completion belongs to it, since GPT-2's tokens begin with spaces. The text
        that begins the next message ends a completion, so it belongs to it, too. An empty last
        message of the completion's field asks for a completion: the text ends where it begins.
        """
        parts: list[Span] = []
        previous: Message | None = None
        for number, message in enumerate(messages):
            field, content = message
            opening = self._opening(field)
            ends_completion = previous is not None and self._is_completion(previous)
            if previous is not None and previous.field == self.completion:
                opening = self._between(opening) + opening
            begun = opening.rstrip(" ")
            parts.append(Span(begun, ends_completion))
            if content or field != self.completion or number + 1 < len(messages):
                rest = opening[len(begun) :] + content + self._end(field)
                parts.append(Span(rest, self._is_completion(message)))
            previous = message
        return [
            Span(text, completion)
            for completion, group in itertools.groupby(parts, lambda part: part.completion)
            if (text := "".join(part.text for part in group))
        ]

    def _is_completion(self, message: Message) -> bool:
        return message.field == self.completion and bool(message.text)

    def _opening(self, field: str) -> str:
        return self._openings[self.fields.index(field)]

    def _end(self, field: str) -> str:
        return self._ends[self.fields.index(field)]

    def _between(self, opening: str) -> str:
        """Return what separates a completion from the next message."""
        return "" if self._ends[-1] or opening.startswith(("<|", "\n")) else BETWEEN


def messages_of(fields: Sequence[str], record: Mapping[str, str]) -> list[Message]:
    """Return the fields of a record as messages."""
    return [Message(field, record[field]) for field in fields]


def conversation(template: Template, value: object) -> list[Message]:
    """Return the messages of OpenAI's chat form: a list of objects with `role` and `content`.

    Raises:
        ValueError: it has another form; says what is wrong and what to do.
    """
    if not isinstance(value, list):
        raise ValueError(
            'the messages are not a list. Write [{"role": "user", "content": "..."}, ...].'
        )
    found = []
    for number, message in enumerate(value, start=1):
        if isinstance(message, Ambiguous):
            raise ValueError(f"message {number}: {message.problem}")
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise ValueError(
                f'message {number} is not an object with "role" and "content". Add them.'
            )
        role, content = message["role"], message["content"]
        if role not in template.fields:
            raise ValueError(
                f"message {number} has the role {quoted(role)}; the template has "
                f"{', '.join(template.fields)}. Rename or remove it, or give --template."
            )
        if not isinstance(content, str):
            raise ValueError(f"the content of message {number} is not a string. Make it one.")
        found.append(Message(role, content))
    return found


def has_completion(spans: Iterable[Span]) -> bool:
    """Return whether there is something to learn to generate."""
    return any(span.completion for span in spans)


# --- the template of a run, which is kept with its model ---


class SavedTemplate(NamedTuple):
    """The template that a model was trained with.

    Attributes:
        text: of the template.
        conversations: whether an example may have several exchanges.
    """

    text: str
    conversations: bool


def save(folder: Path, saved: SavedTemplate) -> None:
    """Write the template into the folder of a run or a model.

    Raises:
        UserError: it cannot be written.
    """
    record = {"template": saved.text, "conversations": saved.conversations}
    files.write_text(folder / TEMPLATE_FILE, json.dumps(record, indent=2) + "\n")


def load(folder: Path) -> SavedTemplate | None:
    """Return the template of a model folder, None if it has none.

    Raises:
        UserError: its file is invalid.
    """
    path = folder / TEMPLATE_FILE
    if not path.is_file():
        return None
    record = files.read_json_object(path)
    text = record.get("template")
    if not isinstance(text, str):
        raise UserError(f'{path}: "template" is not a string. Restore the file or delete it.')
    try:
        Template(text)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return SavedTemplate(text, record.get("conversations") is True)
