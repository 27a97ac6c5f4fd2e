"""Progress bars: a widget or a line in a notebook, a line on a terminal."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gpt2.data.sources import total_size
from gpt2.errors import escaped

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # without ipywidgets, tqdm asks for them and then does without
    from tqdm.auto import tqdm


class Progress:
    """Shows bars, and collects the notices of a call."""

    def __init__(self, shown: bool):
        """Show the bars, or only collect the notices."""
        self._shown = shown
        self.notices: list[str] = []

    def notice(self, sentence: str) -> None:
        """Keep a sentence for the result, and show it above the bar."""
        self.notices.append(escaped(sentence))
        if self._shown:
            tqdm.write(escaped(sentence), file=sys.stderr)

    def bar(self, **options: Any) -> Any:
        """Return a tqdm bar."""
        return tqdm(disable=not self._shown, **options)

    @contextlib.contextmanager
    def counter(self, total: int | None, unit: str) -> Iterator[Callable[[int], object]]:
        """Show a bar over tokens or other items; yields its update function."""
        with self.bar(total=total, unit=unit, unit_scale=unit in ("B", "token")) as bar:
            yield bar.update

    def bytes(self, paths: list[Path]) -> contextlib.AbstractContextManager[Callable[[int], Any]]:
        """Show a bar over the bytes of files; yields its update function."""
        return self.counter(total_size(paths), "B")
