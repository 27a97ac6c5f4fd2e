"""The numbers in the pictures are those that were passed."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from gpt2.evaluation.next_tokens import TokenDistribution
from gpt2.generation.sampling import SamplingSettings
from gpt2.pictures import attention as attention_drawing
from gpt2.pictures.attention import attention_picture, shrunk, strongest, ticks_for
from gpt2.pictures.probabilities import probabilities_picture
from gpt2.pictures.style import THEMES, drawn, style
from gpt2.pictures.training import POINTS, REACH, perplexities, smooth, training_picture
from gpt2.training.run_log import Curves
from tests.golden_model import Golden

pytest.importorskip("matplotlib")
LIGHT = THEMES["light"]


def curves(steps: int) -> Curves:
    places = np.arange(1.0, steps + 1)
    return Curves(
        places, 5 / places, 6 / places, places[::2], np.where(places == 1, np.nan, 4.0)[::2]
    )


def test_curves_are_drawn_point_for_point_for_each_run() -> None:
    runs = {"one": curves(5), "two": curves(8)}
    figure = training_picture(runs, LIGHT)
    loss, perplexity = figure.axes
    for number, run in enumerate(runs.values()):
        raw, smoothed, validation = loss.lines[3 * number : 3 * number + 3]
        np.testing.assert_array_equal(raw.get_xydata(), np.stack([run.steps, run.loss], 1))
        np.testing.assert_array_equal(smoothed.get_ydata(), smooth(run.loss))
        np.testing.assert_array_equal(validation.get_xdata(), run.val_steps)
        np.testing.assert_array_equal(validation.get_ydata(), run.val_loss)
        drawn_perplexity = perplexity.lines[2 * number].get_ydata()
        np.testing.assert_allclose(drawn_perplexity, [math.exp(x) for x in smooth(run.loss)])
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == [
        "one: training, smoothed",
        "one: validation, lowest 4.000 at step 3",
        "two: training, smoothed",
        "two: validation, lowest 4.000 at step 3",
    ]


def test_the_smoothed_loss_is_the_mean_of_the_losses_around_each_step() -> None:
    losses = np.random.default_rng(3).random(1000)
    losses[[0, 500, 501]] = np.nan
    reach = int(REACH * 1000)
    expected = []
    for place in range(1000):
        side = min(place, reach)
        around = losses[place - side : place + side + 1]
        expected.append(np.nanmean(around) if np.isfinite(around).any() else np.nan)
    np.testing.assert_allclose(smooth(losses), expected)
    assert len(smooth(np.zeros(0))) == 0


@pytest.mark.parametrize("steps", [1, 4, 30, 1500])
def test_the_smoothed_loss_of_a_falling_run_does_not_lag_behind(steps: int) -> None:
    losses = 3 + 7 * np.exp(-np.arange(steps) / 100)
    np.testing.assert_allclose(smooth(losses), losses, rtol=0.01)


def test_a_long_run_is_thinned_to_its_last_point() -> None:
    figure = training_picture({"long": curves(3 * POINTS + 2)}, LIGHT)
    steps = figure.axes[0].lines[1].get_xdata()
    assert len(steps) <= POINTS and steps[-1] == 3 * POINTS + 2
    assert set(np.diff(steps)) == {4}


def test_runs_without_training_losses_or_with_infinite_perplexity_can_be_drawn() -> None:
    empty = np.zeros(0)
    validated = Curves(empty, empty, empty, np.array([1.0]), np.array([np.nan]))
    losses = np.array([2e3, np.nan])
    trained = Curves(np.array([1.0, 2.0]), losses, losses, empty, empty)
    assert np.isnan(perplexities(np.array([2e3, np.nan]))).all()
    assert drawn(training_picture({"a": validated, "b": trained}, LIGHT), "svg", LIGHT)


def test_a_shrunk_head_keeps_the_largest_weight_of_each_cell() -> None:
    weights = np.random.default_rng(5).random((7, 7))
    parts = [(0, 1), (2, 3), (4, 5, 6)]
    expected = [
        [max(weights[a, b] for a in rows for b in columns) for columns in parts] for rows in parts
    ]
    np.testing.assert_array_equal(shrunk(weights, 3), expected)
    np.testing.assert_array_equal(shrunk(weights, 7), weights)


def test_the_large_head_the_grid_and_the_bars_show_pytorchs_attention(golden: Golden) -> None:
    attention = golden.arrays["attention"][:, 0]  # [L, H, T, T]
    tokens = [f"t{n}".encode() for n in range(16)]
    figure = attention_picture(attention, tokens, layer=1, head=2, place=9, theme=LIGHT, first=100)
    grid, large, bars = figure.axes[:3]
    past = np.tril(np.ones((16, 16), bool))
    image = large.images[0].get_array()
    np.testing.assert_array_equal(image[past], attention[1, 2][past])
    assert np.isnan(np.ma.filled(image.astype(float), np.nan)[~past]).all()
    mosaic = grid.images[0].get_array()
    for layer in range(2):
        for head in range(3):
            # A weight takes 3 pixels by 3, and 4 are left between one head and the next.
            top, start = 52 * layer, 52 * head
            cell = mosaic[top : top + 48, start : start + 48]
            expected = np.kron(attention[layer, head], np.ones((3, 3)))
            seen = np.kron(past, np.ones((3, 3), bool))
            np.testing.assert_array_equal(cell[seen], expected[seen])
    assert [bar.get_width() for bar in bars.patches] == attention[1, 2, 9, :10].tolist()
    words = [text.get_text() for text in bars.get_yticklabels()]
    assert words == [f"t{n}  {101 + n}" for n in range(10)]
    assert bars.get_title(loc="left") == "Attention of token 110, t9"
    assert [text.get_text() for text in large.get_yticklabels()] == [f"t{n}" for n in range(16)]


def test_bars_are_the_strongest_in_the_order_of_the_text() -> None:
    weights = np.random.default_rng(6).random(300)
    found = strongest(weights, 250).tolist()
    limit = sorted(weights[:251])[-attention_drawing.BARS]
    assert found == [n for n in range(251) if weights[n] >= limit]
    assert strongest(weights, 0).tolist() == [0]


@pytest.mark.parametrize("length", [1, 5, 44, 45, 88, 500, 1024, 5000])
def test_labels_are_thinned_evenly_and_the_chosen_token_keeps_its_own(length: int) -> None:
    for place in {0, length // 3, length - 1}:
        ticks = ticks_for(length, place)
        assert place in ticks and len(ticks) <= attention_drawing.LABELS + 1
        gaps = np.diff(ticks)
        assert (gaps >= -(-length // attention_drawing.LABELS)).all()
        assert length > 44 or ticks == list(range(length))


def test_bars_of_probabilities_are_those_of_the_steps() -> None:
    random = np.random.default_rng(7)
    before, after = random.dirichlet(np.ones(20)), random.dirichlet(np.ones(20))
    rare = int(before.argmin())
    steps = [
        TokenDistribution((1, 2), rare, before, after),
        TokenDistribution((1, 2, rare), None, before, after),
    ]
    figure = probabilities_picture(
        steps, lambda n: f"<{n}>".encode(), SamplingSettings(top_k=3), LIGHT, 4
    )
    first, second = figure.axes
    order = sorted(range(20), key=lambda n: -before[n])[:4]
    for axes, shown in ((first, [*order, rare]), (second, order)):
        widths = [bar.get_width() for bar in axes.patches]
        assert widths == [*before[shown], *after[shown]]
    names = [f"<{n}>" for n in order]
    assert [text.get_text() for text in first.get_yticklabels()] == [*names, f"▸ <{rare}>  #20"]
    assert first.get_title(loc="left") == f"<1><2> ▸ <{rare}>"
    assert second.get_title(loc="left").endswith("▸ ?")
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["probability", "after temperature 1, top_k 3"]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_there_is_a_panel_for_each_step_and_a_scale_below_the_lowest(count: int) -> None:
    probabilities = np.full(20, 0.05)
    steps = [TokenDistribution((n,), n, probabilities, probabilities) for n in range(count)]
    figure = probabilities_picture(steps, lambda n: b"%d" % n, SamplingSettings(), LIGHT, 4)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        f"{n} ▸ {n}" for n in range(count)
    ]
    drawn(figure, "png", LIGHT)
    for number, axes in enumerate(figure.axes):
        named = any(text.get_text() and text.get_visible() for text in axes.get_xticklabels())
        assert named == (number + 3 >= count)


@pytest.mark.parametrize("length", [5, 44, 500])
def test_labels_do_not_overlap(length: int) -> None:
    random = np.random.default_rng(8)
    attention = np.tril(random.random((2, 3, length, length)))
    attention /= attention.sum(-1, keepdims=True)
    tokens = [(b" word", b"\xe4\xb8", "中".encode(), b"unbelievable")[n % 4] for n in range(length)]
    figure = attention_picture(attention, tokens, 0, 0, length - 2, LIGHT)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    canvas = FigureCanvasAgg(figure)
    with style(LIGHT):
        canvas.draw()
    grid = figure.axes[0]
    frame = grid.patches[0].get_window_extent()
    [title] = grid.findobj(lambda part: isinstance(part, Text) and part.get_text() == "All heads")
    assert frame.y1 < title.get_window_extent().y0
    assert frame.x0 > grid.get_yticklabels()[0].get_window_extent().x1
    for axes in figure.axes[1:3]:
        extents = [text.get_window_extent() for text in axes.get_yticklabels() if text.get_text()]
        extents.sort(key=lambda extent: extent.y0)
        for lower, upper in pairwise(extents):
            assert upper.y0 > lower.y1 - 1  # pixel
