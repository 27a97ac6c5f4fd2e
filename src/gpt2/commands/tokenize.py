"""`tokenize`: the tokens of a text, their ids and their bytes."""

from __future__ import annotations

import codecs
import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence

from gpt2.checkpoint.resolve import find_folder
from gpt2.checks import setting
from gpt2.commands import inputs
from gpt2.commands.flags import Command, Values, build, options_of
from gpt2.commands.terminal import has_colors, in_color, notice
from gpt2.data.readers import ReaderSettings, normalize_line_ends
from gpt2.errors import UserError, escaped
from gpt2.evaluation.texts import documents
from gpt2.files import to_json
from gpt2.tokenizer import Tokenizer

# Black on backgrounds that take turns, so that neighboring tokens differ.
COLORS = tuple(f"\x1b[30;{code}m" for code in (43, 46, 42, 45))


@dataclasses.dataclass(frozen=True)
class TokenizeOptions:
    """What tokenize takes besides the vocabulary and the reader's settings."""

    text: str = setting(
        help="text, or a file if one has this name; - for standard input",
        metavar="TEXT|FILE",
        positional=True,
    )


def run(values: Values) -> None:
    """Print id, bytes and text of each token, then the totals."""
    reading = build(ReaderSettings, values)
    tokenizer = find_folder(values.model_name, values.models_dir, notice).tokenizer()
    count = size = 0
    for text in _texts(values.text, reading):
        tokens = tokenizer.encode(text)
        if has_colors():
            print("".join(colored(tokens, tokenizer)), end="\n\n")
        for line in table(tokens, tokenizer):
            print(line)
        count += len(tokens)
        size += len(text.encode())
    if not count:
        raise UserError(f"{values.text or 'The text'}: no text found. Give a text or a file.")
    print(f"\n{count:,} tokens, {size:,} bytes, {size / count:.2f} bytes per token")


def _texts(text: str, reading: ReaderSettings) -> Iterable[str]:
    """Return the text as the only one, or the texts of the file that has this name."""
    if text == "-" or os.path.isfile(text):
        return map(normalize_line_ends, documents(text, reading))
    return [text]


def table(tokens: Sequence[int], tokenizer: Tokenizer) -> Iterator[str]:
    """Yield a line for each token: its id, its number of bytes, and its text in JSON's quotes.

    A token that is not valid UTF-8 by itself, part of a character, is shown as bytes.
    """
    width = len(str(max(tokenizer.vocabulary.values())))
    yield f"{'id':>{width}}  bytes  token"
    for token in tokens:
        content = tokenizer.decode_bytes([token])
        try:
            shown = escaped(to_json(content.decode()))
        except UnicodeDecodeError:
            shown = f"bytes {content.hex(' ')}"
        yield f"{token:{width}}  {len(content):5}  {shown}"


def colored(tokens: Sequence[int], tokenizer: Tokenizer) -> Iterator[str]:
    """Yield the text in pieces, neighboring tokens on different backgrounds.

    Tokens that are parts of one character are shown as one.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces = (decoder.decode(tokenizer.decode_bytes([token])) for token in tokens)
    for number, piece in enumerate(filter(None, pieces)):
        yield in_color(piece, COLORS[number % len(COLORS)])


COMMAND = Command(
    summary="Show the tokens of a text, their ids and their bytes.",
    details="The ids are those that --logit_bias of the samplers takes.",
    groups={
        "text and vocabulary": [*options_of(TokenizeOptions), *inputs.model_options()],
        "how the files are read": inputs.reader_options(),
    },
    run=run,
)
