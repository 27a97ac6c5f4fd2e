"""Where `models/`, `checkpoint/` and `samples/` are.

The workspace is the folder that holds `models/`, `checkpoint/` and `samples/`: the current folder
or, in a clone of the repository, the clone's root or its `src/` if only they have the requested
model, since tutorials of 2019 call the commands from either place. Where the package is installed,
it is always the current folder.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from gpt2.errors import UserError, in_short

# OpenAI renamed the sizes, as the first names were based on wrong parameter counts.
RENAMED = {"117M": "124M", "345M": "355M", "762M": "774M", "1542M": "1558M"}
ALIASES = RENAMED | {present: early for early, present in RENAMED.items()}

MODELS = "models"
_SOURCES = Path(__file__).resolve().parent.parent
# The root of the clone that this file lies in; None where the package is installed.
CLONE = _SOURCES.parent if (_SOURCES.parent / "download_model.py").is_file() else None

# Names that mean a device on Windows in every folder, also before a file ending.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$) *(\..*)?", re.I)

# Bytes; file systems allow 255, of which the temporary names of files and folders use some.
_LONGEST_NAME = 200

# The scripts of the clone whose names are not those of their verbs. A script `tokenize.py` in src/
# would hide the module `tokenize` of Python's standard library from all others there.
_SCRIPTS = {
    "demo": "examples/demo.py",
    "tokenize": "src/show_tokens.py",
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
    """The folders `models/`, `checkpoint/` and `samples/` beside each other."""

    def __init__(self, models: Path):
        """Use this folder of models and the folders beside it."""
        self.models = models
        self.root = models.parent
        self.checkpoint = self.root / "checkpoint"
        self.samples = self.root / "samples"

    @classmethod
    def find(
        cls, models_dir: str | os.PathLike[str] | None = None, model_name: str | None = None
    ) -> Workspace:
        """Return the workspace to use.

        Args:
            models_dir: folder of the models, relative to the current folder. The default (None) is
                `models` in the current folder, or else in the clone.
            model_name: with the default, prefer a workspace that has this model or run.
        """
        if models_dir is not None:
            path = Path(models_dir)
            return cls(path if path.is_absolute() else path.resolve())
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
        """Return the folder of a model (by name or alias) or of a run, or None."""
        if not is_plain_name(name):
            return None
        folders = [self.models / name]
        if name in ALIASES:
            folders.append(self.models / ALIASES[name])
        folders.append(self.checkpoint / name)
        return next((folder for folder in folders if os.path.isdir(folder)), None)

    def names(self) -> list[str]:
        """Return the names of all models and runs, sorted."""
        folders = [*self.models.glob("*/"), *self.checkpoint.glob("*/")]
        return sorted({folder.name for folder in folders if folder.is_dir()})

    def new_model_folder(self, name: str) -> Path:
        """Return the folder of a new model; raises as `check_name` does."""
        return self.models / check_name(name, "model")

    def run_folder(self, run_name: str) -> Path:
        """Return the folder of a run's checkpoints; raises as `check_name` does."""
        return self.checkpoint / check_name(run_name, "run")

    def samples_folder(self, run_name: str) -> Path:
        """Return the folder of a run's samples; raises as `check_name` does."""
        return self.samples / check_name(run_name, "run")


def is_plain_name(name: str) -> bool:
    """Return whether `name` can be a single folder's name on every system."""
    return (
        bool(name.strip(" ."))
        and not _DEVICES.fullmatch(name)
        and name == name.strip()
        and not name.endswith(".")
        and not re.search(r'[\x00-\x1f\x7f-\x9f\ud800-\udfff<>:"/\\|?*]', name)
    )


def check_name(name: str, kind: str) -> str:
    """Return `name` after checking that it is a plain folder name.

    Raises:
        UserError: it is empty or too long, a device of Windows such as CON, or has a path separator
            or a character that a file system refuses.
    """
    if not is_plain_name(name):
        raise UserError(
            f"{name!r} is not a valid name for a {kind}. Use letters, digits, dots, dashes and "
            "underscores."
        )
    if len(name.encode()) > _LONGEST_NAME:
        raise UserError(
            f"The name {in_short(name, 40)} is not a valid name for a {kind}: it is longer than "
            f"{_LONGEST_NAME} bytes. Use a shorter one."
        )
    return name
