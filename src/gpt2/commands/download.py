"""`download`: fetch released models, or verify the files of a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from gpt2 import download
from gpt2.checkpoint.resolve import find_model
from gpt2.checks import setting
from gpt2.commands import inputs
from gpt2.commands.exits import UsageError
from gpt2.commands.flags import Command, Values, options_of, suggestion
from gpt2.commands.terminal import notice, shown
from gpt2.download.transfer import in_bytes, received
from gpt2.errors import UserError, escaped
from gpt2.workspace import Workspace

NAMES = list(download.RELEASES)


@dataclasses.dataclass(frozen=True)
class DownloadOptions:
    """What download takes."""

    model: tuple[str, ...] = setting(
        help=f"models: {', '.join(NAMES)}", metavar="MODEL", positional=True, many=True
    )
    url: str | None = setting(None, "download BASE/MODEL/FILE from your own server", metavar="BASE")
    verify: bool = setting(False, "download nothing; check every byte of the files on disk")


class Bar(download.DownloadProgress):
    """One progress bar for all files of all models."""

    def __init__(self) -> None:
        self.bar = tqdm(unit="B", unit_scale=True, disable=True)

    def planned(self, missing: int, present: int) -> None:
        """Start the bar."""
        if missing:  # 0 if no server has told the sizes
            print(f"Downloading {in_bytes(missing)}", flush=True)
        self.bar = tqdm(
            total=missing + present,
            initial=present,
            unit="B",
            unit_scale=True,
            dynamic_ncols=True,
        )

    def file(self, path: Path) -> None:
        """Show which file is next."""
        self.bar.set_description(escaped(f"{path.parent.name}/{path.name}"))

    def advance(self, size: int) -> None:
        """Advance by so many bytes."""
        self.bar.update(size)

    def waiting(self, seconds: float, reason: str) -> None:
        """Show that the connection was lost."""
        self.bar.set_description(f"Connection lost, retrying in {seconds:.0f} s")

    def checking(self, path: Path) -> None:
        """Show which file is verified."""
        self.bar.set_description(f"Verifying {escaped(path.name)}")


def check(values: Values) -> None:
    """Check the names: other models than the released ones need their own server."""
    for name in values.model:
        if name not in NAMES and not values.url and not values.verify:
            raise UsageError(
                f"there is no released model {name!r}{suggestion(name, NAMES)}; available: "
                f"{', '.join(NAMES)}"
            )


def run(values: Values) -> None:
    """Download the files that are missing, or verify those on disk."""
    workspace = Workspace.find(values.models_dir)
    if values.verify:
        _verify([_folder(name, workspace, values.models_dir) for name in values.model])
        return
    models = [download.Download(name, workspace, values.url) for name in values.model]
    progress = Bar()
    try:
        download.download(models, progress)
    except KeyboardInterrupt:
        progress.bar.close()
        kept = sum(received(model.folder / name) for model in models for name in download.FILES)
        raise KeyboardInterrupt(
            f"Interrupted. {in_bytes(kept)} of partial files are kept; run the same command again "
            "to resume."
        ) from None
    finally:
        progress.bar.close()
    for model in models:
        print("Model files are in", shown(model.folder))


def _folder(name: str, workspace: Workspace, models_dir: str | None) -> Path:
    """Return the folder of a model, whose files may be missing."""
    folder = workspace.model_folder_or_none(name)
    return folder or find_model(name, models_dir, notice).path


def _verify(folders: Sequence[Path]) -> None:
    """Print the result for each file.

    Raises:
        UserError: a file is missing or damaged.
    """
    broken = []
    for folder in folders:
        for finding in download.verify(folder):
            print(f"{shown(finding.path)}: {finding.words}", flush=True)
            if not finding.whole:
                broken.append(finding.path.name)
    if broken:
        raise UserError(
            f"Missing or damaged: {', '.join(broken)}. Run the same command without --verify to "
            "download these files again."
        )


COMMAND = Command(
    summary="Download released GPT-2 models. Complete files are not downloaded again.",
    groups={
        "models": [
            *options_of(DownloadOptions, "model"),
            *options_of(inputs.ModelOptions, "models_dir"),
            *options_of(DownloadOptions, "url", "verify"),
        ]
    },
    run=run,
    check=check,
)
