"""The flags `--shard` and `--merge`, which divide the work of a command among machines."""

from __future__ import annotations

import dataclasses
import glob
import hashlib
from pathlib import Path

from gpt2.checkpoint.folder import ModelFolder
from gpt2.checks import setting
from gpt2.commands.exits import UsageError
from gpt2.commands.flags import Values
from gpt2.errors import UserError, quoted
from gpt2.parts import Part
from gpt2.tokenizer.vocabulary import ENCODER_FILE, MERGES_FILE


@dataclasses.dataclass(frozen=True)
class PartOptions:
    """Which part of the work is done, or the parts that are merged."""

    shard: str = setting(
        "", "do only part I of N of the work; the output is a part for --merge", metavar="I/N"
    )
    merge: str = setting(
        "",
        "glob pattern of all N parts: write the output from them instead of doing the work",
        metavar="PARTS",
    )


def check_parts(values: Values) -> None:
    """Check the form of `--shard`, and that `--merge` is not given with it."""
    if values.shard and values.merge:
        raise UsageError("--shard and --merge cannot be combined; merge after all parts are done")
    part_of(values)


def part_of(values: Values) -> Part | None:
    """Return the part that `--shard` stands for, None without one."""
    if not values.shard:
        return None
    try:
        return Part.parse(values.shard)
    except ValueError as error:
        raise UsageError(f"--shard {error}") from error


def paths_of_parts(values: Values, output: Path | None) -> list[Path]:
    """Return what matches `--merge`, sorted by name.

    Raises:
        UserError: nothing does, or the output is among the parts and would be lost.
    """
    found = sorted(map(Path, glob.glob(values.merge, recursive=True)))
    if not found:
        raise UserError(f"--merge: no part matches {quoted(values.merge)}. Check the pattern.")
    if output is not None and output.resolve() in {path.resolve() for path in found}:
        raise UserError(f"{output}: one of the parts to merge. Give another name for the output.")
    return found


def vocabulary_digest(model: ModelFolder) -> str:
    """Return the sha256 of the two files of a vocabulary."""
    digest = hashlib.sha256()
    for name in (ENCODER_FILE, MERGES_FILE):
        digest.update(model.file(name).read_bytes())
    return digest.hexdigest()
