"""evaluate.py score: what a model thinks of each token of a text."""

from __future__ import annotations

import codecs
import dataclasses
import json as json_module
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from command_line import model_folder, show_notice
from evaluate_commands.shared import (
    check_json,
    finite,
    open_scorer,
    show_table,
    show_values,
    token_bar,
    with_reading_flags,
)
from gpt2 import files
from gpt2.errors import UserError
from gpt2.evaluation.perplexity import Perplexity
from gpt2.evaluation.texts import ScoredText, TextEncoder, documents
from gpt2.evaluation.windows import WindowSettings
from gpt2.tokenizer import Tokenizer

ROWS = 40  # of the table; of a longer text the least expected tokens are shown
MARKED = 0.1  # the share of the tokens that is marked as the least expected
MARK, HALF_MARK, PLAIN = "\x1b[1;31m", "\x1b[33m", "\x1b[0m"  # bold red, yellow


@with_reading_flags
def score(
    text="",
    file="",
    model_name="124M",
    window=None,
    stride=None,
    lines=False,
    json="",
    models_dir="models",
    *,
    reading,
):
    """Tell the log-probability, rank and entropy of each token of a text, and its perplexity.

    On a terminal the least expected tokens are marked in colour. Of a file with several texts, each
    is a line of JSON on standard output.

    Args:
        text: the text
        file: instead of that, a file of texts: one text, .jsonl or .csv with one in each record; - for standard input
        model_name: a model under models/, a run under checkpoint/, or the path of a folder; RUN/model-200 for a certain checkpoint
        window: tokens that the model looks back at, at most (default: all that it can)
        stride: tokens from one window to the next (default: the window)
        lines: take each line of the file for a text
        json: a file for the results, a line of JSON for each text
        models_dir: the folder that holds the models
    """
    if bool(text) == bool(file):
        raise UserError("Give a text with --text, or a file of texts with --file.")
    check_json(json)
    model = model_folder(model_name, models_dir)
    cut = WindowSettings.of(model.hparams.n_ctx, window, stride)
    tokenizer = model.tokenizer()
    vocabulary = TextEncoder(tokenizer, model.hparams)
    reading = dataclasses.replace(reading, lines=lines)
    originals = [text] if text else list(documents(file, reading))
    if not originals:
        raise UserError(f"{file} holds no text.")
    several = len(originals) > 1
    name = "The text" if text else "Standard input" if file == "-" else file
    texts: list[tuple[int, ScoredText]] = []
    for number, original in enumerate(originals, start=1):
        place = f"{name}, text {number}," if several else name
        try:
            texts.append((number, vocabulary.text([original], place)))
        except UserError as error:
            if not several:
                raise
            show_notice(str(error))
    if not texts:
        raise UserError(f"{name} holds no text that can be scored.")
    scorer = open_scorer(model)
    written: list[str] = []
    with token_bar(sum(text.predicted for _, text in texts)) as progress:
        scores = scorer.score((text.tokens for _, text in texts), cut, progress)
        for (number, scored), found in zip(texts, scores, strict=True):
            record = record_of(number, scored, found, tokenizer)
            written.append(json_module.dumps(finite(record), ensure_ascii=False))
            if several and not json:
                tqdm.write(written[-1])  # which keeps the bar out of the line
    if not several:
        show(record, tokenizer)
    if json:
        files.write_text(Path(json), "".join(f"{line}\n" for line in written))
    if len(texts) < len(originals):
        sys.exit(1)


def record_of(number: int, text: ScoredText, scores: Any, tokenizer: Tokenizer) -> dict[str, Any]:
    """What is written of a text; ranks count from 1."""
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


def show(record: dict[str, Any], tokenizer: Tokenizer) -> None:
    """Show the text, a table of its tokens, and what is to be said of all of it."""
    logprobs = np.array(record["logprobs"])
    order = np.argsort(logprobs, kind="stable")  # the least expected first
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        print("".join(coloured(record["tokens"], order, tokenizer)), end="\n\n")
    places = sorted(order[:ROWS].tolist())
    if len(places) < len(logprobs):
        print(f"The {ROWS} least expected of {len(logprobs):,} tokens:")
    rows = [
        [
            json_module.dumps(record["pieces"][place], ensure_ascii=False),
            place + 1,
            f"{record['logprobs'][place]:.3f}",
            f"{record['ranks'][place]:,}",
            f"{record['entropies'][place]:.3f}",
        ]
        for place in places
    ]
    show_table(["token", "place", "log-probability", "rank", "entropy"], rows)
    print()
    values = {"tokens": len(logprobs)}
    names = ("nll", "perplexity_per_token", "perplexity_per_word", "bits_per_byte")
    show_values(values | {name: record[name] for name in names})


def coloured(tokens: Sequence[int], order: np.ndarray, tokenizer: Tokenizer) -> Iterator[str]:
    """The text in pieces, the least expected tokens in colour.

    Args:
        order: the places of the tokens, the least expected first.
    """
    marked = max(1, round(MARKED * len(tokens)))
    colours = dict.fromkeys(order[marked : 3 * marked].tolist(), HALF_MARK)
    colours |= dict.fromkeys(order[:marked].tolist(), MARK)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    colour = None  # of the tokens whose bytes wait for the rest of a character
    for place, token in enumerate(tokens):
        colour = MARK if MARK in (colour, colours.get(place)) else colour or colours.get(place)
        piece = decoder.decode(tokenizer.decode_bytes([token]), final=place + 1 == len(tokens))
        # A text may hold signs that steer the terminal; no colour goes on over the end of a line.
        piece = "".join(
            c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in piece
        )
        if piece:
            yield (
                f"{PLAIN}\n{colour}".join(f"{colour}{piece}{PLAIN}".split("\n"))
                if colour
                else piece
            )
            colour = None
