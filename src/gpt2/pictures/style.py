"""Themes, fonts and output files of all pictures.

matplotlib is an optional dependency and is imported only when a picture is made. Figures are made
without pyplot, which would keep them in memory and could open a window.
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

# Font families, in order of preference. The first two come with matplotlib; every system has some
# of the others. Emoji fonts that consist of color bitmaps are left out: matplotlib cannot use them.
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
    """The colors of a picture, as #rrggbb.

    Attributes:
        name: value of --theme.
        background, foreground: of the page, and of text.
        muted: for axes and other lines and text of less importance.
        series: one color for each run, or kind of bar.
        weights: color scale of attention weights, from 0 to 1.
        surprisal: color scale behind text, from expected to unexpected.
    """

    name: str
    background: str
    foreground: str
    muted: str
    series: tuple[str, ...]
    weights: tuple[str, ...]
    surprisal: tuple[str, ...]

    def colormap(self, colors: tuple[str, ...]) -> Colormap:
        """Return a color scale that shows NaN as the background."""
        from matplotlib.colors import LinearSegmentedColormap

        scale = LinearSegmentedColormap.from_list("gpt2", colors)
        return scale.with_extremes(bad=self.background)


THEMES = {
    "light": Theme(
        name="light",
        background="#ffffff",
        foreground="#1f2328",
        muted="#9aa1ab",
        series=("#0b62a4", "#c2410c", "#0f7b5f", "#8b3fa8", "#8a6100", "#b0206b"),
        weights=("#eef2f7", "#8fbbe0", "#2a78b8", "#08306b"),
        surprisal=("#ffffff", "#fde3cc", "#f9b98a", "#f08a5d"),
    ),
    "dark": Theme(
        name="dark",
        background="#16181d",
        foreground="#e6e8eb",
        muted="#6d7480",
        series=("#6cb2f5", "#ff9d5c", "#4fd1a5", "#d59bf0", "#e9c46a", "#ff8ac0"),
        weights=("#232833", "#2b5f8f", "#5aa9e6", "#e3f3ff"),
        surprisal=("#16181d", "#4a2a17", "#7d3b12", "#a8440a"),
    ),
}


def load_matplotlib() -> None:
    """Import matplotlib.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UserError(
            "Plots need matplotlib, which is not installed. Install it with: pip install matplotlib"
        ) from error


def check_ending(path: Path) -> Path:
    """Return a path after checking that it ends in .png or .svg.

    Raises:
        UserError: it has another ending.
    """
    if path.suffix.lower().removeprefix(".") not in FORMATS:
        raise UserError(f"{path}: unknown picture format. Use a name that ends in .png or .svg.")
    return path


def save(figure: Figure, path: Path, theme: Theme) -> None:
    """Write a figure as PNG or SVG, depending on the ending of the path.

    Raises:
        UserError: the path has another ending, or the file cannot be written.
    """
    picture = drawn(figure, check_ending(path).suffix.lower().removeprefix("."), theme)
    with files.atomic_write(path) as file:
        file.write(picture)


def drawn(figure: Figure, format: str, theme: Theme) -> bytes:
    """Return a figure as the content of a "png" or "svg" file."""
    content = io.BytesIO()
    # Without date and version, the same figure gives the same bytes.
    metadata = {"Date": None} if format == "svg" else {"Software": None}
    with style(theme):
        figure.savefig(content, format=format, dpi=DOTS_PER_INCH, metadata=metadata)
    return content.getvalue()


@contextlib.contextmanager
def style(theme: Theme) -> Iterator[None]:
    """Apply the matplotlib settings of a theme, for making a figure and for writing it."""
    import matplotlib

    settings = {
        "font.family": [PLAIN, *_installed()],
        "font.size": 9,
        "text.parse_math": False,  # dollar signs are not formulas
        "text.color": theme.foreground,
        "axes.facecolor": theme.background,
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.foreground,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.unicode_minus": False,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "xtick.labelcolor": theme.foreground,
        "ytick.labelcolor": theme.foreground,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "grid.color": theme.muted,
        "grid.alpha": 0.3,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "figure.facecolor": theme.background,
        "savefig.facecolor": theme.background,
        "figure.constrained_layout.use": True,
        "svg.hashsalt": "gpt2",
        "svg.fonttype": "path",  # the viewer may not have the fonts
    }
    with matplotlib.rc_context(settings):
        yield


def logarithmic(axes: Axes) -> None:
    """Set a logarithmic y axis with plain numbers as tick labels, also for a narrow range."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def is_drawable(character: str) -> bool:
    """Return whether an installed font has this character."""
    if not _has_glyph(character):
        _add_new_fonts()
    return _has_glyph(character)


def _has_glyph(character: str) -> bool:
    return any(font.get_char_index(ord(character)) for font in _fonts())


@functools.cache  # once per process, as listing the fonts of the system is slow
def _add_new_fonts() -> None:
    """Add fonts that were installed after matplotlib cached its list of fonts."""
    import matplotlib
    from matplotlib import font_manager

    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    families = [PLAIN, *_installed()]
    for path in set(font_manager.findSystemFonts()) - known:
        # Font files may be broken in many ways; matplotlib skips those, too.
        with contextlib.suppress(Exception):
            font_manager.fontManager.addfont(path)
    _installed.cache_clear()
    _fonts.cache_clear()
    if matplotlib.rcParams["font.family"] == families:  # inside `style`
        matplotlib.rcParams["font.family"] = [PLAIN, *_installed()]


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
