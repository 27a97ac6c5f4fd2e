"""A vocabulary and its two files in OpenAI's format: `encoder.json` and `vocab.bpe`.

A token is a string of bytes: most are pieces of text, some only a part of one character. Both files
are text, however, and separate with spaces and line ends, so they write each byte as one visible
character. The bytes that Latin-1 shows as visible characters stand for themselves; the other 68,
in order, are written as the characters from U+0100 on:

    " naïve\\n"  ->  "ĠnaÃ¯veĊ"     (a space is Ġ, a line end Ċ, and the two bytes of ï are Ã and ¯)

`encoder.json` gives each token, so written, its id. `vocab.bpe` lists the merges, two tokens to a
line, the one to be applied first at the top.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from gpt2 import files
from gpt2.errors import UserError, quoted

ENCODER_FILE = "encoder.json"
MERGES_FILE = "vocab.bpe"

# The token between two documents, the only one that is not made of a text's own bytes.
ENDOFTEXT = "<|endoftext|>"

# Such a token and its like: `<|poem|>`.
SPECIAL = re.compile(r"<\|[^\W_][\w-]{0,62}\|>")

# What the first line of vocab.bpe begins with; not every writer puts it there.
_VERSION = "#version:"


def _characters() -> dict[int, str]:
    """The character that each byte is written as, in the order of their ids in OpenAI's files."""
    ranges = ("!~", "¡¬", "®ÿ")
    visible = [byte for first, last in ranges for byte in range(ord(first), ord(last) + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    table = {byte: chr(byte) for byte in visible}
    return table | {byte: chr(256 + index) for index, byte in enumerate(hidden)}


CHARACTER_OF_BYTE = _characters()
BYTE_OF_CHARACTER = {character: bytes([byte]) for byte, character in CHARACTER_OF_BYTE.items()}


def spelled(text: str) -> str:
    """The bytes of `text`, written one visible character each: " naïve" -> "ĠnaÃ¯ve".

    Raises:
        UnicodeEncodeError: the text holds half a character (a lone surrogate), which has no bytes.
    """
    return text.encode("utf-8").decode("latin-1").translate(CHARACTER_OF_BYTE)


def token_bytes(token: str) -> bytes:
    """The bytes that a token stands for: "ĠnaÃ¯ve" -> b" na\\xc3\\xafve".

    Characters that stand for no byte, as some foreign vocabularies have them, mean themselves.
    """
    return b"".join(
        BYTE_OF_CHARACTER.get(character) or character.encode("utf-8", "surrogatepass")
        for character in token
    )


def special_tokens(vocabulary: Mapping[str, int]) -> dict[str, int]:
    """The id of each special token, by the text it stands for: `<|endoftext|>` and its like.

    They are the tokens of the form `<|name|>`, with a name of letters, digits, `_` and `-` that
    begins with one of the first two. No merges make them, as no word of a text has both such marks
    and letters or digits.
    """
    texts = (
        (token_bytes(token).decode("utf-8", "replace"), token)
        for token in vocabulary
        if token.startswith("<|")
    )
    return {text: vocabulary[token] for text, token in texts if SPECIAL.fullmatch(text)}


def check_special_tokens(names: Sequence[str], known: Collection[str]) -> list[str]:
    """The names of new special tokens, if they can be that beside those that are known already.

    Raises:
        UserError: one has not their form, or is there already.
    """
    for number, name in enumerate(names):
        if not SPECIAL.fullmatch(name):
            raise UserError(
                f"{name!r} cannot be a special token; write it as <|name|>, the name made of "
                "letters, digits, _ and -, in quotes for the shell: '<|poem|>'."
            )
        if name in known or name in names[:number]:
            raise UserError(f"The special token {name} is there already; leave it out.")
    return list(names)


def with_tokens(vocabulary: Mapping[str, int], names: Sequence[str]) -> dict[str, int]:
    """The vocabulary and more special tokens behind all others; see `check_special_tokens`."""
    first = max(vocabulary.values(), default=-1) + 1
    names = check_special_tokens(names, special_tokens(vocabulary))
    return {**vocabulary, **{spelled(name): first + n for n, name in enumerate(names)}}


def read_encoder(path: Path) -> dict[str, int]:
    """Read an `encoder.json`: the id of each token.

    Raises:
        UserError: it is missing, no JSON object, an id is no whole number from 0 on, or two tokens
            have the same.
    """
    vocabulary = files.read_json_object(path)
    token_of: dict[int, str] = {}
    for token, number in vocabulary.items():
        if type(number) is not int or not 0 <= number < 2**31:
            raise UserError(
                f"{path}: the id of token {quoted(token)} should be a whole number from 0 to "
                f"2147483647, not {quoted(number)}; fetch or write the file again."
            )
        if token_of.setdefault(number, token) != token:
            raise UserError(
                f"{path}: the tokens {quoted(token_of[number])} and {quoted(token)} have the same "
                f"id {number}; fetch or write the file again."
            )
    return vocabulary


def read_merges(path: Path) -> list[tuple[str, str]]:
    """Read a `vocab.bpe`: the merges, first to be applied first.

    Raises:
        UserError: it is missing, not UTF-8, or a line is not two tokens with a space between.
    """
    merges = []
    for number, line in enumerate(files.read_text(path).split("\n"), start=1):
        if not line.strip() or (number == 1 and line.startswith(_VERSION)):
            continue
        pair = line.split()
        if len(pair) != 2:
            raise UserError(
                f"{path}, line {number}: a merge is two tokens with a space between, "
                f"not {quoted(line)}; fetch or write the file again."
            )
        merges.append((pair[0], pair[1]))
    return merges


def write_vocabulary(
    folder: Path, vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]
) -> None:
    """Write `encoder.json` and `vocab.bpe` into `folder`, as OpenAI did to the byte.

    Raises:
        UserError: they cannot be written.
    """
    files.write_text(folder / ENCODER_FILE, json.dumps(dict(vocabulary)))
    lines = [f"{_VERSION} 0.2", *(f"{first} {second}" for first, second in merges)]
    files.write_text(folder / MERGES_FILE, "\n".join(lines) + "\n")
