"""Text shaded by surprisal: every token in cells of its own, in the right color."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpt2.evaluation.surprisal import surprisal
from gpt2.pictures.style import THEMES, drawn
from gpt2.pictures.surprisal import layout, surprisal_picture
from tests.golden_model import Golden

pytest.importorskip("matplotlib")
LIGHT = THEMES["light"]


def anything(character: str) -> bool:
    return character != "\U0001f979"


def test_surprisal_is_the_negative_log_probability_of_pytorch(golden: Golden) -> None:
    tokens = golden.tokens[0][0].tolist()
    scores = golden.arrays["logits"][0].astype(np.float64)
    logs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    expected = [-logs[place, token] for place, token in enumerate(tokens[1:])]
    weights = golden.tensors("weights")
    found = surprisal(weights, golden.hparams, tokens, endoftext=None)
    assert math.isnan(found[0])
    np.testing.assert_allclose(found[1:], expected, atol=1e-5)
    after = surprisal(weights, golden.hparams, tokens[1:], endoftext=tokens[0])
    np.testing.assert_allclose(after, expected, atol=1e-5)


def test_tokens_do_not_overlap_and_none_is_lost() -> None:
    random = np.random.default_rng(11)
    words = [
        "word",
        " ",
        " und",
        "中文",
        "\U0001f600",
        "\U0001f979",
        "e\u0301",
        "\n",
        "\t",
        "x" * 50,
    ]
    tokens = [random.choice(words).encode() for _ in range(400)] + [b"\xe4\xb8", b"\xad"]
    segments = layout(tokens, 30, anything)
    taken = set()
    for segment in segments:
        cells = {(segment.line, segment.column + n) for n in range(segment.cells)}
        assert not cells & taken and segment.column + segment.cells <= 30, segment
        taken |= cells
    written = dict.fromkeys(range(len(tokens)), "")
    for segment in segments:
        written[segment.token] += f"[{segment.text}]" if segment.is_name else segment.text
    for number, token in enumerate(tokens):
        text = token.decode(errors="replace").replace("\n", "↵").replace("\t", "→")
        text = text.replace("\U0001f979", "[U+1F979]")
        names = {b"\xe4\xb8": "[E4 B8]", b"\xad": "[AD]"}
        assert written[number] == names.get(token, text)
    order = [(segment.line, segment.column) for segment in segments]
    assert order == sorted(order)


def test_newlines_end_a_line_and_words_are_not_split() -> None:
    segments = layout([b"one", b" two", b"\n", b"three", b" four"], 9, anything)
    assert [(segment.text, segment.line, segment.column) for segment in segments] == [
        ("one", 0, 0),
        (" two", 0, 3),
        ("↵", 0, 7),
        ("three", 1, 0),
        (" four", 2, 0),
    ]


def test_colors_and_perplexity_follow_from_the_surprisal() -> None:
    nats = np.array([np.nan, 0.0, math.log(100), 50.0])
    figure = surprisal_picture([b"a", b"b", b"c", b"d"], nats, 4, LIGHT)
    text = figure.axes[0]
    found = text.collections[0].get_facecolors()
    scale_of = LIGHT.colormap(LIGHT.surprisal)
    np.testing.assert_allclose(found, [scale_of(0.0), scale_of(0.0), scale_of(0.5), scale_of(1.0)])
    perplexity = math.exp((math.log(100) + 50) / 3)
    assert figure.texts[0].get_text().startswith(f"Perplexity {perplexity:,.1f} over 3 tokens.")


def test_the_first_tokens_of_a_text_and_a_single_token_can_be_drawn() -> None:
    figure = surprisal_picture([b"a", b"b"], np.array([1.0, 1.0]), 7000, LIGHT)
    assert "the first of 7,000" in figure.texts[0].get_text()
    figure = surprisal_picture([b"a"], np.array([np.nan]), 1, LIGHT)
    assert figure.texts[0].get_text().startswith("No token was predicted")
    assert drawn(figure, "png", LIGHT)
