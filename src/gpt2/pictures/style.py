"""What all pictures share: light and dark, fonts, and how a figure becomes a file.

matplotlib is optional and is imported late. Figures are made without pyplot, so that none is kept
and no window is opened.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2 import files
from gpt2.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.ft2font import FT2Font

FORMATS = ("png", "svg")
DOTS_PER_INCH = 144

# Families that are tried for a character, in this order. The first comes with matplotlib; of the
# others each system has some. Emoji fonts made of coloured bitmaps are none that can be drawn with.
PLAIN, MONOSPACE = "DejaVu Sans", "DejaVu Sans Mono"
FALLBACKS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Microsoft YaHei",
    "SimHei",
    "SimSun",
    "PingFang SC",
    "Hiragino Sans GB",
    "STHeiti",
    "Heiti TC",
    "Yu Gothic",
    "Hiragino Sans",
    "Malgun Gothic",
    "Apple SD Gothic Neo",
    "Nirmala UI",
    "Arial Unicode MS",
    "Noto Emoji",
    "Segoe UI Emoji",
    "Segoe UI Symbol",
    "Symbola",
    "Noto Sans Symbols2",
    "Noto Sans Symbols",
    "Apple Symbols",
    "Unifont",
)


@dataclasses.dataclass(frozen=True)
class Theme:
    """The colours of a picture."""

    name: str
    ground: str
    ink: str
    faint: str  # for lines and words that stay behind
    series: tuple[str, ...]  # one for each run or kind
    weights: tuple[str, ...]  # from no attention to all of it
    surprise: tuple[str, ...]  # from expected to unexpected, all of them behind text in ink

    def colormap(self, colors: tuple[str, ...]) -> Colormap:
        """A scale of colours; what has no value is drawn as the ground."""
        from matplotlib.colors import LinearSegmentedColormap

        scale = LinearSegmentedColormap.from_list("gpt2", colors)
        return scale.with_extremes(bad=self.ground)


THEMES = {
    "light": Theme(
        name="light",
        ground="#ffffff",
        ink="#1f2328",
        faint="#9aa1ab",
        series=("#0b62a4", "#c2410c", "#0f7b5f", "#8b3fa8", "#8a6100", "#b0206b"),
        weights=("#eef2f7", "#8fbbe0", "#2a78b8", "#08306b"),
        surprise=("#ffffff", "#fde3cc", "#f9b98a", "#f08a5d"),
    ),
    "dark": Theme(
        name="dark",
        ground="#16181d",
        ink="#e6e8eb",
        faint="#6d7480",
        series=("#6cb2f5", "#ff9d5c", "#4fd1a5", "#d59bf0", "#e9c46a", "#ff8ac0"),
        weights=("#232833", "#2b5f8f", "#5aa9e6", "#e3f3ff"),
        surprise=("#16181d", "#4a2a17", "#7d3b12", "#a8440a"),
    ),
}


def theme_named(name: str) -> Theme:
    """The theme of that name.

    Raises:
        UserError: there is none.
    """
    if name not in THEMES:
        raise UserError(f"There is no theme {name!r}; there are {' and '.join(THEMES)}.")
    return THEMES[name]


def load_matplotlib() -> None:
    """Find out whether pictures can be drawn.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UserError(
            "Pictures need matplotlib, which is not installed; install it with: "
            "pip install matplotlib"
        ) from error


def check_ending(path: Path) -> Path:
    """The path itself, if a picture can have it.

    Raises:
        UserError: its ending is that of no format that is drawn here.
    """
    if path.suffix.lower().removeprefix(".") not in FORMATS:
        raise UserError(f"{path} should end in .png or .svg, which says what to draw.")
    return path


def save(figure: Figure, path: Path, theme: Theme) -> None:
    """Write a picture as PNG or SVG, by the path's ending.

    Raises:
        UserError: the ending is another one, or the file cannot be written.
    """
    picture = drawn(figure, check_ending(path).suffix.lower().removeprefix("."), theme)
    with files.atomic_write(path) as file:
        file.write(picture)


def drawn(figure: Figure, format: str, theme: Theme) -> bytes:
    """A figure as the content of a file: "png" or "svg"."""
    content = io.BytesIO()
    # Without the date, the same numbers give the same file.
    metadata = {"Date": None} if format == "svg" else {"Software": None}
    with style(theme):
        figure.savefig(content, format=format, dpi=DOTS_PER_INCH, metadata=metadata)
    return content.getvalue()


@contextlib.contextmanager
def style(theme: Theme) -> Iterator[None]:
    """The settings of matplotlib within which all figures are made and drawn."""
    import matplotlib

    settings = {
        "font.family": [PLAIN, *_installed()],
        "font.size": 9,
        "text.parse_math": False,  # a dollar sign in a text is a dollar sign
        "text.color": theme.ink,
        "axes.facecolor": theme.ground,
        "axes.edgecolor": theme.faint,
        "axes.labelcolor": theme.ink,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.unicode_minus": False,
        "xtick.color": theme.faint,
        "ytick.color": theme.faint,
        "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "grid.color": theme.faint,
        "grid.alpha": 0.3,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "figure.facecolor": theme.ground,
        "savefig.facecolor": theme.ground,
        "figure.constrained_layout.use": True,
        "svg.hashsalt": "gpt2",
        "svg.fonttype": "path",  # so that the picture does not hang on the fonts of its reader
    }
    with matplotlib.rc_context(settings):
        yield


def logarithmic(axes: Axes) -> None:
    """Give an axis a logarithmic scale with plain numbers, in a narrow range as in a wide one."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def is_drawable(character: str) -> bool:
    """Whether one of the installed fonts has this character."""
    return any(font.get_char_index(ord(character)) for font in _fonts())


@functools.cache
def _installed() -> tuple[str, ...]:
    from matplotlib import font_manager

    names = {entry.name for entry in font_manager.fontManager.ttflist}
    return tuple(name for name in FALLBACKS if name in names)


@functools.cache
def _fonts() -> tuple[FT2Font, ...]:
    from matplotlib import font_manager

    return tuple(
        font_manager.get_font(font_manager.findfont(name, fallback_to_default=False))
        for name in (PLAIN, *_installed())
    )
