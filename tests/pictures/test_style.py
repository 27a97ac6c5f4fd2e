"""Picture files: format, theme, reproducibility, fonts, and errors."""

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


def test_text_and_lines_have_enough_contrast(theme: Theme) -> None:
    for background in (theme.background, *theme.surprisal):
        assert contrast(theme.foreground, background) >= 4.5, background
    for color in theme.series:
        assert contrast(color, theme.background) >= 4.5, color


def test_a_picture_has_the_format_of_its_ending_and_the_background_of_the_theme(
    tmp_path: Path, theme: Theme
) -> None:
    for name in ("a.png", "b.SVG"):
        style.save(figure_of(theme), tmp_path / name, theme)
    content = (tmp_path / "a.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (288, 144)
    import matplotlib.image

    corner = matplotlib.image.imread(tmp_path / "a.png")[0, 0, :3] * 255
    assert "#" + bytes(corner.round().astype("uint8")).hex() == theme.background
    root = ElementTree.parse(tmp_path / "b.SVG").getroot()
    assert root.tag.endswith("}svg")
    assert theme.background in (tmp_path / "b.SVG").read_text()


def test_the_same_figure_gives_the_same_file(tmp_path: Path, theme: Theme) -> None:
    for format in style.FORMATS:
        assert style.drawn(figure_of(theme), format, theme) == style.drawn(
            figure_of(theme), format, theme
        )


def test_text_with_dollars_and_backslashes_is_not_a_formula(theme: Theme) -> None:
    assert style.drawn(figure_of(theme, r"$\nosuch{ $ x_^"), "svg", theme)


@pytest.mark.filterwarnings("error")
def test_a_drawable_character_is_drawn_without_a_warning(theme: Theme) -> None:
    characters = "aé中😀\U0001f916→↵⟨⟩·…▸�"
    assert is_drawable("a") and is_drawable("é") and not is_drawable("\U0010fffd")
    style.drawn(figure_of(theme, "".join(filter(is_drawable, characters))), "png", theme)


def test_the_marks_of_labels_can_be_drawn_everywhere() -> None:
    assert all(map(is_drawable, "⟨⟩·↵→…▸"))  # the font that comes with matplotlib has them


def test_a_font_that_was_installed_after_matplotlib_listed_the_fonts_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib import font_manager

    # A font that matplotlib has, under the name of a fallback that the list does not have yet.
    known = font_manager.findfont("STIXSizeOneSym", fallback_to_default=False)
    plain = font_manager.findfont(style.PLAIN)
    codes = [set(font_manager.get_font(path).get_charmap()) for path in (known, plain)]
    character = chr(min(codes[0] - codes[1]))
    new_font = tmp_path / "new.ttf"
    new_font.write_bytes(Path(known).read_bytes())
    (tmp_path / "broken.ttf").write_bytes(b"not a font")
    fonts = [str(new_font), str(tmp_path / "broken.ttf")]
    manager = font_manager.fontManager
    listed = [entry for entry in manager.ttflist if entry.name != "STIXSizeOneSym"]
    monkeypatch.setattr(manager, "ttflist", listed)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: fonts)
    monkeypatch.setattr(style, "FALLBACKS", ("STIXSizeOneSym",))
    caches = (style._installed, style._fonts, style._add_new_fonts)
    for cache in caches:
        cache.cache_clear()
    try:
        assert not style._has_glyph(character)
        with style.style(THEMES["light"]):
            assert is_drawable(character)
            assert matplotlib.rcParams["font.family"] == [style.PLAIN, "STIXSizeOneSym"]
        assert "STIXSizeOneSym" not in matplotlib.rcParams["font.family"]
    finally:
        for cache in caches:
            cache.cache_clear()


@pytest.mark.parametrize("name", ["picture.jpg", "picture", ".png"])
def test_an_unknown_picture_format_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"\.png or \.svg"):
        style.save(figure_of(THEMES["light"]), tmp_path / name, THEMES["light"])


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    light = THEMES["light"]
    with pytest.raises(UserError, match="cannot be written"):
        style.save(figure_of(light), tmp_path / "missing" / "a.png", light)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        style.save(figure_of(light), tmp_path / "folder.png", light)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_the_error_without_matplotlib_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match="pip install matplotlib") as caught:
        style.load_matplotlib()
    assert "\n" not in str(caught.value)
