"""A vocabulary and its two files in OpenAI's format: `encoder.json` and `vocab.bpe`.

A token is a string of bytes, often a piece of text, sometimes only part of a character. Both files
are text with spaces and newlines as separators, so they write each byte as one visible character.
Bytes that are visible characters in Latin-1 stand for themselves; the other 68 are written, in
order, as the characters from U+0100 on:

    " naïve\\n"  ->  "ĠnaÃ¯veĊ"     (space is Ġ, newline is Ċ, and the two bytes of ï are Ã and ¯)

`encoder.json` maps each token in this spelling to its id. `vocab.bpe` lists the merges in order of
priority, two tokens per line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from pathlib import Path

from gpt2 import files
from gpt2.errors import UserError, quoted
from gpt2.tokenizer.words import words

ENCODER_FILE = "encoder.json"
MERGES_FILE = "vocab.bpe"

# The special token that ends each document.
ENDOFTEXT = "<|endoftext|>"

# The form of special tokens, such as `<|poem|>`.
SPECIAL = re.compile(r"<\|[^\W_][\w-]{0,62}\|>")

# Start of the first line of vocab.bpe, which some writers omit.
_VERSION = "#version:"


def _characters() -> dict[int, str]:
    """Return the character of each byte, in the order of their ids in OpenAI's files."""
    ranges = (("!", "~"), ("¡", "¬"), ("®", "ÿ"))
    visible = [byte for first, last in ranges for byte in range(ord(first), ord(last) + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    table = {byte: chr(byte) for byte in visible}
    return table | {byte: chr(256 + index) for index, byte in enumerate(hidden)}


CHARACTER_OF_BYTE = _characters()
BYTE_OF_CHARACTER = {character: bytes([byte]) for byte, character in CHARACTER_OF_BYTE.items()}


def spelled(text: str) -> str:
    """Return the UTF-8 bytes of `text` as one visible character each.

    Raises:
        UnicodeEncodeError: the text contains a lone surrogate, which has no UTF-8 bytes.

    Example:
        >>> spelled(" naïve")
        'ĠnaÃ¯ve'
    """
    return text.encode("utf-8").decode("latin-1").translate(CHARACTER_OF_BYTE)


def token_bytes(token: str) -> bytes:
    r"""Return the bytes of a token.

    Characters outside the byte alphabet, as in vocabularies of other tools, stand for themselves.

    Example:
        >>> token_bytes("ĠnaÃ¯ve")
        b' na\xc3\xafve'
    """
    return b"".join(
        BYTE_OF_CHARACTER.get(character) or character.encode("utf-8", "surrogatepass")
        for character in token
    )


def special_tokens(vocabulary: Mapping[str, int]) -> dict[str, int]:
    """Return the id of each special token, by its text.

    Special tokens have the form `<|name|>`: letters, digits, `_` and `-`, the first a letter or a
    digit. Merges cannot produce them, because no word has both punctuation and letters or digits.
    """
    texts = (
        (token_bytes(token).decode("utf-8", "replace"), token)
        for token in vocabulary
        if token.startswith("<|")
    )
    return {text: vocabulary[token] for text, token in texts if SPECIAL.fullmatch(text)}


def check_special_tokens(names: Sequence[str], known: Collection[str]) -> list[str]:
    """Return the names of new special tokens, checked.

    Args:
        names: the new tokens, of the form `<|name|>`.
        known: special tokens that the vocabulary has.

    Raises:
        UserError: a name has another form, is known, or occurs twice.
    """
    for number, name in enumerate(names):
        if not SPECIAL.fullmatch(name):
            raise UserError(
                f"{name!r} is not a valid special token. Write it as <|name|> with letters, "
                "digits, _ and -, quoted for the shell: '<|poem|>'."
            )
        if name in known or name in names[:number]:
            raise UserError(f"The special token {name} already exists. Leave it out.")
    return list(names)


def with_tokens(vocabulary: Mapping[str, int], names: Sequence[str]) -> dict[str, int]:
    """Return the vocabulary with special tokens appended; see `check_special_tokens`."""
    first = max(vocabulary.values(), default=-1) + 1
    names = check_special_tokens(names, special_tokens(vocabulary))
    return {**vocabulary, **{spelled(name): first + n for n, name in enumerate(names)}}


def read_encoder(path: Path) -> dict[str, int]:
    """Return the id of each token in an `encoder.json`.

    Raises:
        UserError: the file is missing or not a JSON object, an id is not a whole number from 0 to
            2147483647, or two tokens have the same id.
    """
    vocabulary = files.read_json_object(path)
    if not vocabulary:
        raise UserError(f"{path} has no tokens. Download or create the file again.")
    for token, number in vocabulary.items():
        if type(number) is not int or not 0 <= number < 2**31:
            raise UserError(
                f"{path}: the id of token {quoted(token)} is {quoted(number)}; expected a whole "
                "number from 0 to 2147483647. Download or create the file again."
            )
    last = {number: token for token, number in vocabulary.items()}
    if len(last) < len(vocabulary):
        first = next(token for token, number in vocabulary.items() if last[number] != token)
        number = vocabulary[first]
        raise UserError(
            f"{path}: the tokens {quoted(first)} and {quoted(last[number])} have the same "
            f"id {number}. Download or create the file again."
        )
    return vocabulary


def read_merges(path: Path) -> list[tuple[str, str]]:
    """Return the merges in a `vocab.bpe`, in order of priority.

    Raises:
        UserError: the file is missing or not UTF-8, or a line is not two tokens and a space.
    """
    merges = []
    for number, line in enumerate(files.read_text(path).split("\n"), start=1):
        pair = line.split()
        if not pair or (number == 1 and line.startswith(_VERSION)):
            continue
        if len(pair) != 2:
            raise UserError(
                f"{path} line {number}: {quoted(line)} is not a merge; expected two tokens "
                "separated by a space. Download or create the file again."
            )
        merges.append((pair[0], pair[1]))
    return merges


def read_vocabulary(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return the vocabulary and the merges in the two files of a folder.

    Raises:
        UserError: a file is missing or invalid, or they do not belong together.
    """
    vocabulary = read_encoder(folder / ENCODER_FILE)
    merges = read_merges(folder / MERGES_FILE)
    _check_all_are_made(vocabulary, merges, folder / MERGES_FILE)
    return vocabulary, merges


def _check_all_are_made(
    vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], path: Path
) -> None:
    """Check that merges make every token that is neither a byte nor added by hand.

    So a truncated list of merges is noticed, wherever it ends. A vocabulary that is not one of
    byte-level BPE, such as a list of whole words, has neither merges nor all bytes.
    """
    if not merges and not vocabulary.keys() >= BYTE_OF_CHARACTER.keys():
        return
    made = set(map("".join, merges))
    lost = [token for token in vocabulary if token not in made and _needs_a_merge(token)]
    if lost:
        first_lost = min(lost, key=vocabulary.__getitem__)
        raise UserError(
            f"{path}: no merge for {len(lost):,} of the tokens in {ENCODER_FILE}, the first "
            f"{quoted(first_lost)} (id {vocabulary[first_lost]}); it is truncated or of another "
            "model. Download or create the file again."
        )


def _needs_a_merge(token: str) -> bool:
    """Return whether a token is not a byte and can be in a word, so that merges must make it.

    Added tokens, such as `<pad>` or `[SEP]`, are several words.
    """
    if len(token) < 2 or not BYTE_OF_CHARACTER.keys() >= set(token):
        return False
    try:
        text = token_bytes(token).decode("utf-8")
    except UnicodeDecodeError:
        return True  # part of a character
    return not SPECIAL.fullmatch(text) and len([*chain.from_iterable(words(text))]) == 1


def write_vocabulary(
    folder: Path, vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]
) -> None:
    """Write `encoder.json` and `vocab.bpe` into `folder`, byte for byte in OpenAI's format.

    Raises:
        UserError: they cannot be written.
    """
    files.write_text(folder / ENCODER_FILE, json.dumps(dict(vocabulary)))
    lines = [f"{_VERSION} 0.2", *(f"{first} {second}" for first, second in merges)]
    files.write_text(folder / MERGES_FILE, "\n".join(lines) + "\n")
