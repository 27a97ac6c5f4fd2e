"""Where models/, checkpoint/ and samples/ are, and which folder a model's name means.

The workspace is the folder that holds the `models/` in use; `checkpoint/` and `samples/` lie
beside it. It is looked for in the current folder, then at the root of this toolkit, then in its
`src/`, since the tutorials of 2019 call the commands from either place.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from gpt2.errors import UserError

# OpenAI renamed the sizes after the paper, which had counted them wrongly.
RENAMED = {"117M": "124M", "345M": "355M", "762M": "774M", "1542M": "1558M"}
ALIASES = RENAMED | {present: early for early, present in RENAMED.items()}

MODELS = "models"
SOURCES = Path(__file__).resolve().parent.parent
TOOLKIT = SOURCES.parent


class Workspace:
    """The folders models/, checkpoint/ and samples/ that belong together."""

    def __init__(self, models: Path):
        self.models = models
        self.root = models.parent
        self.checkpoint = self.root / "checkpoint"
        self.samples = self.root / "samples"

    @classmethod
    def find(cls, models_dir: str = MODELS, model_name: str | None = None) -> Workspace:
        """The workspace of `models_dir`, preferring one in which `model_name` is to be found."""
        if Path(models_dir).is_absolute():
            return cls(Path(models_dir))
        places = [Path.cwd(), TOOLKIT, SOURCES]
        candidates = [cls((place / models_dir).resolve()) for place in places]
        if model_name is not None:
            for candidate in candidates:
                if candidate.model_folder_or_none(model_name):
                    return candidate
        for candidate in candidates:
            if candidate.models.is_dir():
                return candidate
        return candidates[0]

    def model_folder_or_none(self, name: str) -> Path | None:
        """The folder that a model's or a run's name stands for here, or None."""
        if not is_plain_name(name):
            return None
        folders = [self.models / name]
        if name in ALIASES:
            folders.append(self.models / ALIASES[name])
        folders.append(self.checkpoint / name)
        return next((folder for folder in folders if os.path.isdir(folder)), None)

    def model_folder(self, name: str) -> Path:
        """The folder of a model: under models/ by its name or alias, a run, or a path.

        Raises:
            UserError: there is none.
        """
        folder = self.model_folder_or_none(name)
        if folder is None and os.path.isdir(name):
            folder = Path(name)
        if folder is None:
            remedy = (
                f"fetch it with: python download_model.py {name}"
                if name in ALIASES
                else "give a folder under models/, a run under checkpoint/, or a path, "
                f"or make one with: python src/new_model.py {name} --dataset TEXT"
            )
            raise UserError(
                f"There is no model {name!r} in {self.models} or {self.checkpoint}; {remedy}"
            )
        return folder

    def run_behind_model(self, name: str) -> Path | None:
        """The run that cannot be had by its name, as a model has the same, or None."""
        folder = self.model_folder_or_none(name)
        run = self.checkpoint / name
        return run if folder and folder != run and run.is_dir() else None

    def new_model_folder(self, name: str) -> Path:
        """Where a new model of that name will lie; see `check_name`."""
        return self.models / check_name(name, "model")

    def run_folder(self, run_name: str) -> Path:
        """Where the checkpoints of a run lie; see `check_name`."""
        return self.checkpoint / check_name(run_name, "run")

    def samples_folder(self, run_name: str) -> Path:
        """Where the samples of a run lie; see `check_name`."""
        return self.samples / check_name(run_name, "run")


def is_plain_name(name: str) -> bool:
    """Whether `name` is a single folder's name, on Windows too."""
    return (
        bool(name.strip(" ."))
        and name == name.strip()
        and not name.endswith(".")
        and not re.search(r'[\x00-\x1f<>:"/\\|?*]', name)
    )


def check_name(name: str, kind: str) -> str:
    """`name` itself, if it can name a folder of its own.

    Raises:
        UserError: it is empty, or holds a character that leads elsewhere or that a file system
            refuses.
    """
    if not is_plain_name(name):
        raise UserError(
            f"{name!r} cannot name a {kind}; use letters, digits, dots, dashes and underscores."
        )
    return name
