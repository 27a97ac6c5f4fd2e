"""Hands what a training finds to Weights & Biases, an optional package with its own service."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from gpt2.errors import UserError


def load_wandb() -> ModuleType:
    """The package.

    Raises:
        UserError: it is not installed, or broken.
    """
    try:
        import wandb

        wandb.init  # noqa: B018  # a folder of runs named wandb can be imported too
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"--wandb needs the package wandb ({error}); install it with: pip install wandb"
        ) from error
    return wandb


class WeightsAndBiases:
    """A run there; it has the numbers' names and steps of `watchers.Watcher`."""

    def __init__(self, project: str, name: str, folder: Path, config: Mapping[str, Any]):
        """Begin a run.

        Without a network or an account it is kept in `folder`, for `wandb sync`, as it is where
        the variable WANDB_MODE is "offline".
        """
        self._wandb = load_wandb()
        known = {"project": project, "name": name, "dir": str(folder), "config": dict(config)}
        try:
            try:
                self._run = self._wandb.init(**known)
            except Exception:  # of many kinds, and all mean that the service is out of reach
                self._run = self._wandb.init(**known, mode="offline")
        except Exception as error:
            raise UserError(f"Weights & Biases cannot begin a run: {error}") from error

    def numbers(self, step: int, **values: float) -> None:
        """See `watchers.Watcher`."""
        self._log(step, values)

    def samples(self, step: int, text: str) -> None:
        """See `watchers.Watcher`."""
        self._log(step, {"samples": self._wandb.Html(f"<pre>{html.escape(text)}</pre>")})

    def close(self) -> None:
        """See `watchers.Watcher`."""
        self._run.finish()

    def _log(self, step: int, values: Mapping[str, Any]) -> None:
        try:
            self._run.log(dict(values), step=step)
        except Exception as error:
            raise UserError(f"Weights & Biases refuses the numbers: {error}") from error
