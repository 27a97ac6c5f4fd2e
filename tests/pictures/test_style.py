"""Files of pictures: whole, the same each time, and a sentence where there can be none."""

from __future__ import annotations

import struct
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from gpt2.errors import UserError
from gpt2.pictures import style
from gpt2.pictures.style import THEMES, Theme, is_drawable

matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture(params=sorted(THEMES))
def theme(request: pytest.FixtureRequest) -> Theme:
    return THEMES[request.param]


def figure_of(theme: Theme, text: str = "text"):
    from matplotlib.figure import Figure

    with style.style(theme):
        figure = Figure(figsize=(2, 1))
        figure.subplots().set_title(text)
        return figure


def luminance(color: str) -> float:
    """Relative luminance by WCAG 2.1."""
    channels = (int(color[n : n + 2], 16) / 255 for n in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def test_words_and_lines_stand_out_from_what_is_behind_them(theme: Theme) -> None:
    for ground in (theme.ground, *theme.surprise):
        assert contrast(theme.ink, ground) >= 4.5, ground
    for color in theme.series:
        assert contrast(color, theme.ground) >= 4.5, color


def test_a_picture_is_what_its_ending_says_on_the_themes_ground(
    tmp_path: Path, theme: Theme
) -> None:
    for name in ("a.png", "b.SVG"):
        style.save(figure_of(theme), tmp_path / name, theme)
    content = (tmp_path / "a.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (288, 144)
    import matplotlib.image

    corner = matplotlib.image.imread(tmp_path / "a.png")[0, 0, :3] * 255
    assert "#" + bytes(corner.round().astype("uint8")).hex() == theme.ground
    root = ElementTree.parse(tmp_path / "b.SVG").getroot()
    assert root.tag.endswith("}svg")
    assert theme.ground in (tmp_path / "b.SVG").read_text()


def test_the_same_figure_gives_the_same_file(tmp_path: Path, theme: Theme) -> None:
    for format in style.FORMATS:
        assert style.drawn(figure_of(theme), format, theme) == style.drawn(
            figure_of(theme), format, theme
        )


def test_a_text_with_dollars_and_backslashes_is_no_formula(theme: Theme) -> None:
    assert style.drawn(figure_of(theme, r"$\nosuch{ $ x_^"), "svg", theme)


@pytest.mark.filterwarnings("error")
def test_a_character_that_counts_as_drawable_is_drawn_without_a_complaint(theme: Theme) -> None:
    characters = "aé中😀\U0001f916→↵⟨⟩·…▸�"
    assert is_drawable("a") and is_drawable("é") and not is_drawable("\U0010fffd")
    style.drawn(figure_of(theme, "".join(filter(is_drawable, characters))), "png", theme)


def test_the_marks_of_labels_can_be_drawn_everywhere() -> None:
    assert all(map(is_drawable, "⟨⟩·↵→…▸"))  # they are in the font that comes with matplotlib


def test_what_is_no_picture_and_no_theme_is_refused(tmp_path: Path) -> None:
    for name in ("picture.jpg", "picture", ".png"):
        with pytest.raises(UserError, match=r"should end in \.png or \.svg"):
            style.save(figure_of(THEMES["light"]), tmp_path / name, THEMES["light"])
    with pytest.raises(UserError, match="no theme 'pink'; there are light and dark"):
        style.theme_named("pink")


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    light = THEMES["light"]
    with pytest.raises(UserError, match="cannot be written"):
        style.save(figure_of(light), tmp_path / "missing" / "a.png", light)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        style.save(figure_of(light), tmp_path / "folder.png", light)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_without_matplotlib_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match="pip install matplotlib") as caught:
        style.load_matplotlib()
    assert "\n" not in str(caught.value)
