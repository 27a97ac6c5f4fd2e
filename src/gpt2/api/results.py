"""How the results of the functions are shown: as a line, and as a table in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from gpt2.api import html


class Result:
    """A result that shows its facts.

    Attributes:
        title: caption of its table.
    """

    title: ClassVar[str]

    def _facts(self) -> Mapping[str, str | None]:
        """Return the displayed values by label; None for those that are unknown."""
        raise NotImplementedError

    def _known_facts(self) -> dict[str, str]:
        return {label: value for label, value in self._facts().items() if value is not None}

    def __repr__(self) -> str:
        facts = ", ".join(f"{label}: {value}" for label, value in self._known_facts().items())
        return f"{type(self).__name__}({facts})"

    def _repr_html_(self) -> str:
        return html.table(self.title, self._known_facts())
