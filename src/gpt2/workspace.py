"""Where `models/`, `checkpoint/` and `samples/` are.

The workspace is the folder that holds `models/`; `checkpoint/` and `samples/` lie beside it. It is
the current folder, or, for a clone of the repository, the clone's root or its `src/` if only that
has the model that is asked for: the tutorials of 2019 call the commands from either place.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from gpt2.errors import UserError

# OpenAI renamed the sizes after the paper, whose parameter counts were wrong.
RENAMED = {"117M": "124M", "345M": "355M", "762M": "774M", "1542M": "1558M"}
ALIASES = RENAMED | {present: early for early, present in RENAMED.items()}

MODELS = "models"
_SOURCES = Path(__file__).resolve().parent.parent
# The root of the clone that this file lies in; None where the package is installed.
CLONE = _SOURCES.parent if (_SOURCES.parent / "download_model.py").is_file() else None

# The scripts of the clone, for the verbs that messages name.
_SCRIPTS = {
    "download": "download_model.py",
    "interactive": "src/interactive_conditional_samples.py",
    "unconditional": "src/generate_unconditional_samples.py",
    "conditional": "src/generate_conditional_samples.py",
}


def command_line(verb: str) -> str:
    """Return how to call a verb here, for messages.

    Example:
        >>> command_line("encode")
        'python src/encode.py'
    """
    if CLONE is None:
        return f"gpt2 {verb}"
    return f"python {_SCRIPTS.get(verb) or 'src/' + verb.replace('-', '_') + '.py'}"


class Workspace:
    """The folders `models/`, `checkpoint/` and `samples/` that belong together."""

    def __init__(self, models: Path):
        """Take the folder of the models."""
        self.models = models
        self.root = models.parent
        self.checkpoint = self.root / "checkpoint"
        self.samples = self.root / "samples"

    @classmethod
    def find(cls, models_dir: str | None = None, model_name: str | None = None) -> Workspace:
        """Return the workspace to use.

        Args:
            models_dir: the folder of the models, relative to the current folder; None for the
                default, `models` in the current folder or else in the clone.
            model_name: with the default, a workspace that has this model or run is preferred.
        """
        if models_dir is not None:
            return cls(Path(models_dir).absolute())
        places = [Path.cwd(), *([CLONE, _SOURCES] if CLONE else [])]
        candidates = [cls((place / MODELS).resolve()) for place in places]
        if model_name is not None:
            for candidate in candidates:
                if candidate.model_folder_or_none(model_name):
                    return candidate
        for candidate in candidates:
            if candidate.models.is_dir():
                return candidate
        return candidates[0]

    def model_folder_or_none(self, name: str) -> Path | None:
        """Return the folder of a model under `models/`, by name or alias, or of a run, or None."""
        if not is_plain_name(name):
            return None
        folders = [self.models / name]
        if name in ALIASES:
            folders.append(self.models / ALIASES[name])
        folders.append(self.checkpoint / name)
        return next((folder for folder in folders if os.path.isdir(folder)), None)

    def names(self) -> list[str]:
        """Return the names of the models and runs that there are."""
        folders = [*self.models.glob("*/"), *self.checkpoint.glob("*/")]
        return sorted({folder.name for folder in folders if folder.is_dir()})

    def new_model_folder(self, name: str) -> Path:
        """Return where a new model of that name will lie; see `check_name`."""
        return self.models / check_name(name, "model")

    def run_folder(self, run_name: str) -> Path:
        """Return where the checkpoints of a run lie; see `check_name`."""
        return self.checkpoint / check_name(run_name, "run")

    def samples_folder(self, run_name: str) -> Path:
        """Return where the samples of a run lie; see `check_name`."""
        return self.samples / check_name(run_name, "run")


def is_plain_name(name: str) -> bool:
    """Return whether `name` is a single folder's name, on Windows too."""
    return (
        bool(name.strip(" ."))
        and name == name.strip()
        and not name.endswith(".")
        and not re.search(r'[\x00-\x1f<>:"/\\|?*]', name)
    )


def check_name(name: str, kind: str) -> str:
    """Return `name`, if it can name a folder of its own.

    Raises:
        UserError: it is empty, or holds a character that leads elsewhere or that a file system
            refuses.
    """
    if not is_plain_name(name):
        raise UserError(
            f"{name!r} is not a valid name for a {kind}. Use letters, digits, dots, dashes and "
            "underscores."
        )
    return name
