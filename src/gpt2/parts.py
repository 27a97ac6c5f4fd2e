"""Parts of a job that is divided among machines, and the checks before they are merged.

Item k of the job, counted from 0, belongs to part k mod N + 1 of N. Strided parts need no count of
the items beforehand, differ by one item at most, and are merged in the original order by reading
one item of each part in turn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2.errors import UserError, in_short, quoted

KEY = "shard"  # under this name the facts of a part say which one it is


@dataclass(frozen=True)
class Part:
    """Part `number`, from 1, of `count`."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: object) -> Part:
        """Return the part that a text stands for.

        Raises:
            ValueError: it does not stand for one.

        Example:
            >>> Part.parse("1/4")
            Part(number=1, count=4)
        """
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", str(text), re.ASCII)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError(f"must be a part such as 1/4 or 4/4, not {quoted(text)}")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        """Return the form that `parse` reads."""
        return f"{self.number}/{self.count}"

    def has(self, item: int) -> bool:
        """Return whether an item, counted from 0, belongs to this part."""
        return item % self.count == self.number - 1


def in_order(facts: Mapping[Path, Mapping[str, Any]], expected: Mapping[str, Any]) -> list[Path]:
    """Return the files or folders of the parts by their numbers, after checking their facts.

    Args:
        facts: of each part: `KEY`, and everything else that decides its content, by name.
        expected: those of the other facts that the merging command knows itself.

    Raises:
        UserError: a part is missing or given twice, or two of them belong to different jobs.
    """
    first, *_ = facts
    known = {name: (value, "expected here") for name, value in expected.items()}
    known = {name: (value, f"in {first}") for name, value in facts[first].items()} | known
    found: dict[int, Path] = {}
    count = _part(first, facts[first]).count
    for path, own in facts.items():
        part = _part(path, own)
        if part.count != count:
            raise UserError(
                f"{path}: part {part}, but {first} is one of {count} parts. Merge parts of one "
                "division."
            )
        for name in {**known, **own}:
            theirs = own.get(name)
            other, where = known.get(name, (None, f"in {first}"))
            if name != KEY and theirs != other:
                raise UserError(
                    f"{path}: {in_short(name)} is {quoted(theirs)}, but {quoted(other)} {where}. "
                    "Merge parts that were made by the same command from the same files."
                )
        if part.number in found:
            raise UserError(f"{path}: part {part}, as {found[part.number]}. Give each part once.")
        found[part.number] = path
    missing = [number for number in range(1, count + 1) if number not in found]
    if missing:
        names = in_short(", ".join(f"{number}/{count}" for number in missing))
        raise UserError(
            f"Part {names} is missing. Run the command for it, then merge again."
            if len(missing) == 1
            else f"Parts {names} are missing. Run the command for each, then merge again."
        )
    return [found[number] for number in sorted(found)]


def _part(path: Path, facts: Mapping[str, Any]) -> Part:
    try:
        return Part.parse(facts.get(KEY))
    except ValueError as error:
        raise not_a_part(path) from error


def not_a_part(path: Path) -> UserError:
    """Return the error for a file or folder that no command has written as a part."""
    return UserError(f"{path}: not a part. Give what a command has written with shard I/N.")
