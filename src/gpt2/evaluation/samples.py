"""Read generated samples in any of the formats in which they are written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from gpt2.data import tokenization
from gpt2.data.readers import UTF_8, ReaderSettings
from gpt2.errors import UserError

# The banner above each sample of train.py and of the samplers, whatever its width.
_BANNER = re.compile(r"^={8,} SAMPLE \d+ ={8,}\n", re.MULTILINE)
# The line after a completion of the interactive sampler; the next prompt follows.
_END_OF_ANSWER = re.compile(r"^={80}\n.*", re.MULTILINE | re.DOTALL)
# The line between, or after, the samples of gpt-2-simple.
_DELIMITER = re.compile(r"^={20}(?:\n|\Z)", re.MULTILINE)


def read_samples(file: Path, reading: ReaderSettings = UTF_8) -> list[str]:
    """Return the samples of a file, some of which may be empty.

    In JSON lines, a sample is the field "text" of each object. In text, samples follow banners such
    as `======== SAMPLE 1 ========`, or are separated by lines of twenty `=`; otherwise the whole
    file is one sample.

    Args:
        reading: only its encoding and errors are used.

    Raises:
        UserError: the file cannot be read, or contains no sample.
    """
    parts = tokenization.read_texts(
        [file], reading=ReaderSettings(reading.encoding, reading.errors, "text")
    )
    content = "".join(parts)
    samples = _split(content, file)
    if not samples:
        raise UserError(f"{file}: no samples found.")
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
    """Return whether the first line is a JSON object."""
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
            if place == len(lines):  # an incomplete last line, left by a killed process
                return
            sample = None
        if not isinstance(sample, str):
            raise UserError(
                f'{file} line {place}: not a JSON object with a string "text". Fix or delete '
                "the line."
            )
        yield sample


def run_samples(folder: Path) -> list[Path]:
    """Return the sample files of a training run (`samples/RUN/`), in the order of their steps.

    Folders of such names are left out.

    Raises:
        UserError: there is no such file.
    """
    found = [
        path
        for path in folder.glob("samples-*")
        if re.fullmatch(r"samples-[0-9]{1,18}", path.name) and path.is_file()
    ]
    if not found:
        raise UserError(
            f"{folder}: no samples found. Training writes them every --sample_every steps."
        )
    return sorted(found, key=lambda path: int(path.name.removeprefix("samples-")))
