"""`evaluate score`: log-probability, rank and entropy of each token of a text."""

from __future__ import annotations

import codecs
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from gpt2 import files
from gpt2.checkpoint.folder import ModelFolder
from gpt2.checks import setting
from gpt2.commands import exits, inputs
from gpt2.commands.evaluate.shared import (
    batches_of,
    check_output,
    check_parts_and_output,
    evaluation_options,
    file_facts,
    open_scorer,
    reader_options,
    window_of,
)
from gpt2.commands.exits import UsageError
from gpt2.commands.flags import Command, Values, build, exactly_one, options_of
from gpt2.commands.parts import PartOptions
from gpt2.commands.terminal import (
    has_colors,
    in_color,
    notice,
    print_table,
    print_values,
    token_bar,
)
from gpt2.data.readers import ReaderSettings
from gpt2.errors import UserError
from gpt2.evaluation.batch_parts import Batches
from gpt2.evaluation.perplexity import Perplexity
from gpt2.evaluation.texts import ScoredText, TextEncoder, documents
from gpt2.evaluation.windows import WindowSettings
from gpt2.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gpt2.evaluation.scoring import Scores

ROWS = 40  # of the table; for a longer text, the least probable tokens are shown
MARKED = 0.1  # fraction of the tokens that are bold red; twice as many more are yellow
RED, YELLOW = "\x1b[1;31m", "\x1b[33m"  # terminal colors


@dataclasses.dataclass(frozen=True)
class ScoreOptions:
    """What score takes besides the model, the window and the reader's settings."""

    text: str = setting("", "text to score", metavar="TEXT")
    file: str = setting(
        "",
        "file to score instead: one text, or .jsonl or .csv with one text per record; - for "
        "standard input",
        metavar="FILE",
    )


def check(values: Values) -> None:
    """Check that there is one input, and that a file is divided into parts."""
    exactly_one("text", "file")(values)
    check_parts_and_output(values)
    if values.text and (values.shard or values.merge):
        raise UsageError("--shard and --merge need --file; one text is not divided")


def run(values: Values) -> None:
    """Score each text, print the results and write them to --json."""
    check_output(values)
    reading = build(ReaderSettings, values)
    model = inputs.open_model(values)
    window = window_of(values, model)
    originals = _read(values, reading)
    several = len(originals) > 1
    texts = _encode(originals, _name(values), model)
    records = []
    facts = file_facts(values.file) if values.shard or values.merge else {}
    with batches_of(values, model, window, facts) as batches:
        for record in _score(texts, model, window, batches):
            if values.shard:
                continue
            records.append(record)
            if several and not values.json:
                tqdm.write(files.to_json(record))  # print() would break the progress bar
    if not several and not values.shard:
        _print(records[0], model.tokenizer())
    if values.json and not values.shard:
        lines = (f"{files.to_json(record)}\n" for record in records)
        files.write_text(Path(values.json), "".join(lines))
    if len(texts) < len(originals):
        sys.exit(exits.FAILED)


def _name(values: Values) -> str:
    """Return what messages call the input."""
    if values.text:
        return "The text"
    return "Standard input" if values.file == "-" else values.file


def _read(values: Values, reading: ReaderSettings) -> list[str]:
    """Return the texts of --text or --file.

    Raises:
        UserError: the file contains no text.
    """
    originals = [values.text] if values.text else list(documents(values.file, reading))
    if not originals:
        raise UserError(f"{_name(values)} contains no text.")
    return originals


def _encode(originals: Sequence[str], name: str, model: ModelFolder) -> dict[int, ScoredText]:
    """Return the texts as tokens, by number from 1, with a notice for each that is too short.

    Raises:
        UserError: all of them are too short.
    """
    encoder = TextEncoder(model.tokenizer(), model.hparams)
    texts = {}
    for number, original in enumerate(originals, start=1):
        place = f"{name} text {number}" if len(originals) > 1 else name
        try:
            texts[number] = encoder.text([original], place)
        except UserError as error:
            if len(originals) == 1:
                raise
            notice(str(error))
    if not texts:
        raise UserError(f"{name} contains no text that can be scored.")
    return texts


def _score(
    texts: dict[int, ScoredText], model: ModelFolder, window: WindowSettings, batches: Batches
) -> Iterator[dict[str, Any]]:
    """Yield a record for each text, with a progress bar."""
    tokenizer = model.tokenizer()
    scorer = open_scorer(model, batches)
    with token_bar(sum(text.predicted for text in texts.values())) as progress:
        scores = scorer.score((text.tokens for text in texts.values()), window, progress)
        for (number, text), found in zip(texts.items(), scores, strict=True):
            yield _record(number, text, found, tokenizer)


def _record(number: int, text: ScoredText, scores: Scores, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the results of one text; ranks count from 1."""
    tokens = text.tokens[1:].tolist()
    nll = float(scores.nats.sum(dtype="float64"))
    perplexity = Perplexity(text.predicted, text.words, text.size, nll)
    return {
        "number": number,
        "text": tokenizer.decode(tokens),
        "tokens": tokens,
        "pieces": [tokenizer.decode([token]) for token in tokens],
        "logprobs": [round(-float(nats), 5) for nats in scores.nats],
        "ranks": [int(rank) + 1 for rank in scores.ranks],
        "entropies": [round(float(entropy), 5) for entropy in scores.entropies],
        "nll": perplexity.nll,
        "perplexity_per_token": perplexity.per("token"),
        "perplexity_per_word": perplexity.per("word"),
        "bits_per_byte": perplexity.bits_per_byte,
    }


def _print(record: dict[str, Any], tokenizer: Tokenizer) -> None:
    """Print the text in color on a terminal, a table of its tokens, and the results."""
    logprobs = np.array(record["logprobs"])
    order = np.argsort(logprobs, kind="stable")  # the least probable first
    if has_colors():
        print("".join(colored(record["tokens"], order, tokenizer)), end="\n\n")
    _print_tokens(record, order)
    print()
    names = ("nll", "perplexity_per_token", "perplexity_per_word", "bits_per_byte")
    print_values({"tokens": len(logprobs)} | {name: record[name] for name in names})


def _print_tokens(record: dict[str, Any], order: np.ndarray) -> None:
    """Print a table of the tokens, or of the least probable ones, in the order of the text."""
    if len(order) > ROWS:
        print(f"The {ROWS} least probable of {len(order):,} tokens:")
    rows = [
        [
            files.to_json(record["pieces"][place]),
            place + 1,
            f"{record['logprobs'][place]:.3f}",
            f"{record['ranks'][place]:,}",
            f"{record['entropies'][place]:.3f}",
        ]
        for place in sorted(order[:ROWS].tolist())
    ]
    print_table(["token", "place", "log-probability", "rank", "entropy"], rows)


def colored(tokens: Sequence[int], order: np.ndarray, tokenizer: Tokenizer) -> Iterator[str]:
    """Yield the text in pieces, the least probable tokens in color.

    Args:
        order: positions of the tokens, the least probable first.
    """
    marked = max(1, round(MARKED * len(tokens)))
    colors = dict.fromkeys(order[marked : 3 * marked].tolist(), YELLOW)
    colors |= dict.fromkeys(order[:marked].tolist(), RED)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    color = None  # of the tokens whose bytes are an incomplete character so far
    for place, token in enumerate(tokens):
        color = RED if RED in (color, colors.get(place)) else color or colors.get(place)
        piece = decoder.decode(tokenizer.decode_bytes([token]), final=place + 1 == len(tokens))
        if piece:
            yield in_color(piece, color)
            color = None


COMMAND = Command(
    summary="Print log-probability, rank and entropy of each token of a text, and its perplexity.",
    details=(
        "On a terminal the least probable tokens are colored. For a file with several texts, the "
        "output is\none JSON object per line."
    ),
    groups={
        "text and model": [*options_of(ScoreOptions), *inputs.model_options()],
        "evaluation": [
            *evaluation_options(),
        ],
        "several machines": options_of(PartOptions),
        "how the files are read": reader_options("lines"),
    },
    run=run,
    check=check,
    first="text",
)
