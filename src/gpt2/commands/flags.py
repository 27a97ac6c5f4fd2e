"""Flags made of settings: each is declared once, as a field of a dataclass (see `gpt2.checks`).

A command lists the fields it takes as options. Two parsers read them: python-fire those of the
samplers, as in 2019, and argparse those of all other commands. What both share is done here: names,
values, suggestions for misspelled flags, and `--help`.
"""

from __future__ import annotations

import argparse
import ast
import codecs
import dataclasses
import difflib
import json
import re
import sys
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from gpt2.checks import Setting, check_value, field_types, setting_of, settings_from
from gpt2.commands.exits import UsageError
from gpt2.errors import UserError, quoted

Values = argparse.Namespace
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_EXPECTED = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple[int, ...]: "a whole number, or several separated by commas",
    tuple[float, ...]: "a number, or several separated by commas",
}


@dataclasses.dataclass(frozen=True)
class Option:
    """A flag or a positional argument of a command: a field of settings and its default there."""

    name: str  # of the field
    kind: Any  # its type, without None
    optional: bool  # whether None is a value, too
    default: Any  # dataclasses.MISSING if it is required
    declared: Setting

    @property
    def flag(self) -> str:
        """The name on the command line: `--top_k`, or the metavar of a positional argument."""
        if self.declared.positional:
            return self.declared.metavar or self.name
        return f"--{self.declared.flag or self.name}"

    @property
    def names(self) -> list[str]:
        """All names of the flag."""
        return [self.flag, *(f"--{alias}" for alias in self.declared.aliases)]

    @property
    def required(self) -> bool:
        """Whether it has to be given."""
        return self.default is dataclasses.MISSING

    @property
    def metavar(self) -> str | None:
        """What stands for the value in a usage line, if it has one."""
        if self.kind is bool:
            return None
        if self.declared.choices:
            return "{" + ",".join(self.declared.choices) + "}"
        kinds = {int: "N", float: "X", str: "TEXT", Path: "PATH"}
        return self.declared.metavar or kinds.get(self.kind, "VALUE")

    @property
    def help(self) -> str:
        """The declared help, followed by the default if there is one to show."""
        shown = self.default
        if isinstance(shown, tuple):
            shown = ",".join(map(str, shown))
        if self.required or shown is None or shown is False or shown == "" or shown == {}:
            return self.declared.help
        if isinstance(shown, float):
            shown = f"{shown:g}"
        return f"{self.declared.help} (default: {shown})"

    def check(self, value: Any) -> None:
        """Check a value that was given.

        Raises:
            UsageError: it is not one of the choices.
            UserError: it is out of range.
        """
        if self.declared.choices is not None and value not in self.declared.choices:
            choices = ", ".join(self.declared.choices)
            raise UsageError(f"{self.flag} must be one of {choices}, not {quoted(value)}")
        if typing.get_origin(self.kind) is tuple:
            for item in value:
                check_value(self.flag, item, typing.get_args(self.kind)[0], self.declared)
        else:
            check_value(self.flag, value, self.kind, self.declared)

    def parse(self, text: str) -> Any:
        """Return the value that a text on the command line stands for.

        Raises:
            UsageError: it does not stand for one.
        """
        try:
            return _parse(text, self.kind)
        except (ValueError, OverflowError) as error:
            expected = _EXPECTED.get(self.kind) or str(error)
            raise UsageError(f"{self.flag} must be {expected}, not {quoted(text)}") from error


def _parse(text: str, kind: Any) -> Any:
    if kind is bool:
        if text.lower() in _TRUE + _FALSE:
            return text.lower() in _TRUE
        raise ValueError("true or false")
    if kind in (int, float, str, Path):
        return kind(text)
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        return (
            parse_strings(text) if item is str else tuple(map(item, text.strip("[]()").split(",")))
        )
    return _parse_bias(text)


def parse_strings(text: str) -> tuple[str, ...]:
    r"""Return the strings in a JSON list, or the text as the only one.

    Backslash escapes such as \n stand for what they mean.

    Example:
        >>> parse_strings('["###", "\\n"]'), parse_strings("[1]")
        (('###', '\n'), ('[1]',))

    Raises:
        ValueError: only some items of a list are strings, or a backslash escape is invalid.
    """
    if not text:
        return ()
    if (listed := listed_strings(text)) is not None:
        return listed
    try:
        return (codecs.decode(text.encode("latin-1", "backslashreplace"), "unicode_escape"),)
    except ValueError as error:
        raise ValueError("text with valid backslash escapes") from error


def listed_strings(text: str) -> tuple[str, ...] | None:
    """Return the strings in a JSON list, None for any other text.

    Raises:
        ValueError: only some items of a list are strings.
    """
    try:
        listed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    are_strings = [isinstance(item, str) for item in listed] if isinstance(listed, list) else []
    if not any(are_strings) and listed != []:
        return None
    if not all(are_strings):
        raise ValueError("a list of strings only")
    return tuple(listed)


def _parse_bias(text: str) -> dict[int, float]:
    """Return a number for each token id: `{198: -5}`, or JSON's form with quoted ids.

    Raises:
        ValueError: it is something else, or an id occurs twice.
    """
    try:
        pairs = _pairs(ast.parse(text.strip(), mode="eval").body)
    except Exception as error:  # the parser has half a dozen kinds
        raise ValueError("a number for each token id, such as '{198: -5}'") from error
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a number for each token id, each id only once")
    return dict(pairs)


def _pairs(table: ast.expr) -> list[tuple[int, float]]:
    """Return keys and values of a dictionary as written; in Python's own form, the last wins."""
    if not isinstance(table, ast.Dict) or None in table.keys:  # None stands for **
        raise ValueError("not a dictionary")
    keys = [ast.literal_eval(key) for key in table.keys if key is not None]
    values = [ast.literal_eval(value) for value in table.values]
    for key, value in zip(keys, values, strict=True):
        is_id = type(key) is int or (isinstance(key, str) and key.isdecimal())
        if not is_id or type(value) not in (int, float):
            raise ValueError("not a token id and a number")
    return [(int(key), float(value)) for key, value in zip(keys, values, strict=True)]


def options_of(settings: type, *names: str, **defaults: Any) -> list[Option]:
    """Return the fields of a dataclass that are settings, as options of a command.

    Args:
        names: the fields to take; all of them if none is named.
        defaults: of fields that have another default in this command.
    """
    found = []
    kinds = field_types(settings)
    for field in dataclasses.fields(settings):
        declared = setting_of(field)
        if declared is None or (names and field.name not in names):
            continue
        default = defaults.get(field.name, field.default)
        factory: Any = field.default_factory
        if default is dataclasses.MISSING and factory is not dataclasses.MISSING:
            default = factory()
        kind, optional = kinds[field.name]
        found.append(Option(field.name, kind, optional, default, declared))
    return found


def several(options: Sequence[Option]) -> list[Option]:
    """Return options that take several values, separated by commas, instead of one."""
    found = []
    for option in options:
        declared = dataclasses.replace(option.declared, metavar=f"{option.metavar},...")
        kind: Any = tuple[option.kind, ...]  # type: ignore[name-defined]
        default = (option.default,)
        found.append(dataclasses.replace(option, kind=kind, default=default, declared=declared))
    return found


def exactly_one(*names: str) -> Callable[[Values], None]:
    """Return a `Command.check` that exactly one of these flags is given."""

    def check(values: Values) -> None:
        if sum(bool(getattr(values, name)) for name in names) != 1:
            raise UsageError(f"give either {' or '.join(f'--{name}' for name in names)}")

    return check


def words_of(options: Sequence[Option], values: Values, without: Collection[str] = ()) -> list[str]:
    """Return the words of a command line that gives these values, without defaults.

    Args:
        without: names of options to leave out.
    """
    words = []
    for option in options:
        value = getattr(values, option.name)
        if option.name in without or value is None or value == option.default:
            continue
        if option.kind is bool:
            words += [option.flag if value else f"{option.flag}=no"]
        else:
            words += [option.flag, str(value)]
    return words


def build(settings: type, values: Values, **others: Any) -> Any:
    """Return settings made of the parsed values of the same names.

    Args:
        others: fields that no flag gives, or other values than the flags'.

    Raises:
        UserError: see the settings.
    """
    return settings_from(settings, vars(values), **others)


@dataclasses.dataclass(frozen=True)
class Command:
    """A command: what it takes, what it says of itself, and what it does.

    Attributes:
        summary: one sentence, imperative.
        groups: titles and options, in the order of `--help`.
        run: does the work, given the values of all options.
        details: paragraphs of `--help` below the summary.
        by_fire: whether python-fire parses it.
        check: finds out whether the values make sense together, raising `UsageError`.
        first: name of the flag that a first word without a flag is the value of.
    """

    summary: str
    groups: Mapping[str, Sequence[Option]]
    run: Callable[[Values], None]
    details: str = ""
    by_fire: bool = False
    check: Callable[[Values], None] = lambda values: None
    first: str = ""

    @property
    def options(self) -> list[Option]:
        """The options of all groups."""
        return [option for group in self.groups.values() for option in group]

    def parse(self, words: Sequence[str], program: str) -> Values:
        """Return the values of all options, those that are not given at their defaults.

        Args:
            words: the command line, without the program's name.
            program: its name, for `--help`.

        Raises:
            UsageError: the command line is wrong.
            SystemExit: help was asked for and has been shown.
        """
        parser = self.parser(program)
        if "-h" in words or "--help" in words:
            parser.print_help()
            sys.exit(0)
        if self.first and words and not words[0].startswith("-"):
            words = [f"--{self.first}={words[0]}", *words[1:]]
        words = _normalized(words, self.options, self.by_fire)
        given = self._by_fire(words) if self.by_fire else parser.values(words)
        values = Values(**{option.name: given.get(option.name, None) for option in self.options})
        for option in self.options:
            if option.name not in given:
                if option.required:
                    raise UsageError(f"{option.flag} is missing")
                setattr(values, option.name, option.default)
            else:
                option.check(given[option.name])
        self.check(values)
        return values

    def _by_fire(self, words: Sequence[str]) -> dict[str, Any]:
        """Return the values that python-fire finds.

        Raises:
            UsageError: there is a word that is neither a flag nor the value of one. python-fire
                gives some of them, such as -, a meaning of its own.
        """
        import fire

        if unexpected := [word for word in words if not _looks_like_a_flag(word)]:
            first = f"{self.options[0].flag} {unexpected[0]}"
            raise UsageError(f"unexpected argument {quoted(unexpected[0])} (did you mean {first}?)")
        found: dict[str, Any] = {}

        def collect(**flags: str) -> None:
            for option in self.options:
                text = flags.get(option.flag.removeprefix("--"))
                # python-fire read None as in Python: --seed None was the default of 2019.
                if text is not None and not (text == "None" and option.default is None):
                    found[option.name] = option.parse(text)

        fire.Fire(fire.decorators.SetParseFn(str)(collect), command=list(words))
        return found

    def parser(self, program: str) -> _Parser:
        """Return an argparse parser of the options, which also prints their help."""
        parser = _Parser(
            prog=program,
            description="\n\n".join(filter(None, (self.summary, self.details))),
            formatter_class=_HelpFormatter,
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
        )
        for title, options in self.groups.items():
            group = parser.add_argument_group(title)
            for option in options:
                _add_option(group, option)
        return parser


def _add_option(group: Any, option: Option) -> None:
    """Add an option to a group of an argparse parser."""
    keywords: dict[str, Any] = {"help": option.help.replace("%", "%%")}
    if option.kind is bool:
        keywords |= {"type": option.parse, "nargs": "?", "const": True, "metavar": "yes|no"}
    else:
        keywords |= {"metavar": option.metavar}
        keywords["type"] = str if option.declared.many else option.parse
        if option.declared.many:
            keywords["nargs"] = "+"
    if option.declared.positional:
        group.add_argument(option.name, **keywords)
    else:
        group.add_argument(*option.names, dest=option.name, required=option.required, **keywords)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=30)


class _Parser(argparse.ArgumentParser):
    """Raises what argparse would print."""

    def values(self, words: Sequence[str]) -> dict[str, Any]:
        """Return the values that were given.

        Raises:
            UsageError: an argument is missing, or there is one too many.
        """
        found, unexpected = self.parse_known_args(words)
        if unexpected:
            raise UsageError(f"unexpected argument {quoted(unexpected[0])}")
        return vars(found)

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError`."""
        missing = message.removeprefix("the following arguments are required: ")
        if missing != message:
            message = f"missing: {missing}"
        raise UsageError(message)


def _normalized(words: Sequence[str], options: Sequence[Option], letters: bool) -> list[str]:
    """Return a command line in which every flag has its full name and, after a =, its value.

    Args:
        letters: whether the first letter of a flag stands for it, where no other begins with it.

    Raises:
        UsageError: a flag is unknown, is given twice, or lacks its value.
    """
    by_name = {name: option for option in options for name in option.names}
    normalized: list[str] = []
    seen: set[str] = set()
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        name, equals, value = word.partition("=")
        if not _looks_like_a_flag(name):
            normalized.append(word)
            continue
        option, negated = _find(name, by_name, letters)
        if option.flag in seen:
            raise UsageError(f"{option.flag} is given twice")
        seen.add(option.flag)
        if negated and equals:
            raise UsageError(f"{name} takes no value; use {option.flag}={value}")
        if option.kind is bool:
            value = "false" if negated else value if equals else "true"
        elif option.declared.many:
            normalized.append(option.flag)
            normalized += [value] if equals else []
            continue
        elif not equals:
            if waiting and not _is_known(waiting[0], by_name):
                value = waiting.pop(0)
            elif option.declared.bare is None:
                raise UsageError(f"{option.flag} needs a value")
            else:
                value = option.declared.bare
        normalized.append(f"{option.flag}={value}")
    return normalized


def _looks_like_a_flag(word: str) -> bool:
    return re.match(r"--[A-Za-z]|-[A-Za-z]$", word) is not None


def _is_known(word: str, by_name: Mapping[str, Option]) -> bool:
    return word.partition("=")[0].replace("-", "_").replace("__", "--", 1) in by_name


def _find(name: str, by_name: Mapping[str, Option], letters: bool) -> tuple[Option, bool]:
    """Return the option of this name, and whether `--no` stands in front of it."""
    plain = "--" + name.lstrip("-").replace("-", "_")
    if plain in by_name and name.startswith("--"):
        return by_name[plain], False
    positive = by_name.get("--" + plain.removeprefix("--no").lstrip("_"))
    if plain.startswith("--no") and positive is not None and positive.kind is bool:
        return positive, True
    flags = [option.flag for option in by_name.values() if not option.declared.positional]
    if letters and len(name) == 2:  # one letter, as python-fire allows
        matches = sorted({flag for flag in flags if flag[2] == name[1]})
        if len(matches) == 1:
            return by_name[matches[0]], False
        options = f"it could be {' or '.join(matches)}" if matches else "give its full name"
        raise UsageError(f"there is no flag {name}; {options}")
    raise UsageError(f"there is no flag {name}{suggestion(plain, flags)}")


def suggestion(word: str, known: Sequence[str]) -> str:
    """Return " (did you mean X?)" with the known word nearest to this one, or nothing."""
    starts = [other for other in known if len(word) > 2 and other.startswith(word)]
    nearest = starts or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" (did you mean {nearest[0]}?)" if nearest else ""


def parse_value(option: Option, text: str) -> Any:
    """Return the value that a person typed for an option in an interactive session.

    Raises:
        UserError: it does not stand for one, or for one out of range.
    """
    try:
        value = option.parse(text)
        option.check(value)
        return value
    except UsageError as error:
        raise UserError(f"{error}.") from error
