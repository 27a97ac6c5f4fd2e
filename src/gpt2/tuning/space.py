"""The search space: a value, a list or a range for each setting."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

LOG_FACTOR = 10  # a range whose ends are at least this factor apart is searched on a log scale


@dataclasses.dataclass(frozen=True)
class Dimension:
    """The values that a setting may have: one (which is not searched), a list, or a range.

    Attributes:
        values: the values of a list, or the two inclusive ends of a range.
        is_range: whether everything between the two values belongs to it, too.
    """

    values: tuple[Any, ...]
    is_range: bool = False

    @property
    def is_searched(self) -> bool:
        """Whether there is more than one value."""
        return len(self.values) > 1

    @property
    def is_log(self) -> bool:
        """Whether it is a range that is searched on a log scale."""
        return self.is_range and 0 < self.values[0] * LOG_FACTOR <= self.values[1]

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """Return the value of a trial, which Optuna stores under this name."""
        if not self.is_searched:
            return self.values[0]
        if not self.is_range:
            return trial.suggest_categorical(name, self.values)
        low, high = self.values
        suggest = trial.suggest_int if isinstance(low, int) else trial.suggest_float
        return suggest(name, low, high, log=self.is_log)

    def __str__(self) -> str:
        """Return it as on the command line."""
        words = (f"{value:g}" if isinstance(value, float) else str(value) for value in self.values)
        return (".." if self.is_range else ",").join(words)


def fixed(value: Any) -> Dimension:
    """Return a dimension that is not searched."""
    return Dimension((value,))


def parse_dimension(text: str, kind: type) -> Dimension:
    """Return the dimension that a text stands for.

    Args:
        kind: of the values, int or float.

    Example:
        >>> parse_dimension("1,2,4", int)
        Dimension(values=(1, 2, 4), is_range=False)
        >>> parse_dimension("1e-5..1e-3", float)
        Dimension(values=(1e-05, 0.001), is_range=True)

    Raises:
        ValueError: it does not stand for one.
        OverflowError: a value is too large.
    """
    if ".." in text:
        low, high = map(kind, text.split("..", 1))
        if not low < high:
            raise ValueError("the ends of a range ascend")
        return Dimension((low, high), is_range=True)
    values = tuple(map(kind, text.split(",")))
    if len(set(values)) < len(values):
        raise ValueError("a value is listed twice")
    return Dimension(values)


def describe_difference(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str | None:
    """Return the first difference between two descriptions of a study in words, or None."""
    for name in {**ours, **theirs}:
        mine, other = ours.get(name, "(not given)"), theirs.get(name, "(not given)")
        if mine != other:
            return f"--{name} {other}, not {mine}"
    return None
