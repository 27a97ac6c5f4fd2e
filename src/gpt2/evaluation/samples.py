"""Reads samples, in whichever form they were written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from gpt2.data import tokenization
from gpt2.data.readers import UTF_8, ReaderSettings
from gpt2.errors import UserError

# What stands above each sample of train.py and of the samplers, with more of the signs.
_BANNER = re.compile(r"^={8,} SAMPLE \d+ ={8,}\n", re.MULTILINE)
# What the interactive sampler closes an answer with; what follows is the next prompt.
_END_OF_ANSWER = re.compile(r"^={80}\n.*", re.MULTILINE | re.DOTALL)
# What stands between, or after, the samples of gpt-2-simple and of a folder of samples.
_DELIMITER = re.compile(r"^={20}(?:\n|\Z)", re.MULTILINE)


def read_samples(file: Path, reading: ReaderSettings = UTF_8) -> list[str]:
    """The samples of a file, of which some may be empty.

    Lines of JSON have one in the field "text" of each; a text with lines `==== SAMPLE 1 ====` has
    one below each of them, one with lines of twenty `=` has them in between; any other is one.

    Args:
        reading: of which encoding and errors count.

    Raises:
        UserError: the file cannot be read, or there is no sample in it.
    """
    parts = tokenization.read_texts(
        [file], reading=ReaderSettings(reading.encoding, reading.errors, "text")
    )
    content = "".join(parts)
    samples = _split(content, file)
    if not samples:
        raise UserError(f"There are no samples in {file}.")
    return samples


def _split(content: str, file: Path) -> list[str]:
    if _is_json(content):
        return list(_json_lines(content, file))
    if _BANNER.search(content):
        shown = (_END_OF_ANSWER.sub("", sample) for sample in _BANNER.split(content)[1:])
        return [sample.rstrip("\n") for sample in shown]
    samples = [sample.rstrip("\n") for sample in _DELIMITER.split(content)]
    if not samples[-1].strip():
        samples.pop()  # the delimiter stood after the last sample, or there is nothing at all
    return samples


def _is_json(content: str) -> bool:
    """Whether the first line is an object of JSON."""
    if not content.lstrip().startswith("{"):
        return False
    try:
        return isinstance(json.loads(content.lstrip().partition("\n")[0]), dict)
    except (ValueError, RecursionError):
        return False


def _json_lines(content: str, file: Path) -> Iterator[str]:
    lines = content.split("\n")
    for place, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            sample = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError, RecursionError):
            if place == len(lines):  # it has no end, as where the writer was killed
                return
            sample = None
        if not isinstance(sample, str):
            raise UserError(
                f'{file}, line {place}: this is not an object such as {{"text": "..."}}; mend it '
                "or leave it out."
            )
        yield sample


def run_samples(folder: Path) -> list[Path]:
    """The files of samples that a training has written to `samples/RUN/`, in the order of steps.

    Raises:
        UserError: there are none.
    """
    found = [path for path in folder.glob("samples-*") if re.fullmatch(r"samples-\d+", path.name)]
    if not found:
        raise UserError(
            f"There are no samples in {folder}; train.py writes them as --sample_every says."
        )
    return sorted(found, key=lambda path: int(path.name.removeprefix("samples-")))
