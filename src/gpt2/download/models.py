"""Download of whole models, and verification of models on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gpt2 import files
from gpt2.checkpoint import bundle, folder, index
from gpt2.download import checks
from gpt2.download.releases import ADDRESSES, DATA_FILE, FILES, INDEX_FILE, RELEASES, Release
from gpt2.download.transfer import (
    DownloadProgress,
    RetryPolicy,
    check_space,
    clear,
    fetch,
    received,
    size_at,
)
from gpt2.errors import UserError
from gpt2.hparams import HParams
from gpt2.locks import download_lock
from gpt2.tokenizer import ENCODER_FILE, MERGES_FILE, read_vocabulary
from gpt2.workspace import ALIASES, Workspace


class Download:
    """A model to download.

    Attributes:
        folder: its folder; an existing one of the model's other name is used.
    """

    def __init__(self, name: str, workspace: Workspace, address: str | None = None):
        """Describe a download.

        Args:
            name: one of `RELEASES`; any name if `address` is given.
            address: base URL, with the files at ADDRESS/NAME/FILE; by default OpenAI's server and
                its mirror.

        Raises:
            UserError: the name is not a valid folder name.
        """
        self.folder = workspace.new_model_folder(name)
        other = workspace.models / ALIASES.get(name, name)
        if other.is_dir() and not self.folder.is_dir():
            self.folder = other
        # Files at another address need not be OpenAI's, so they have no known checksums.
        known = RELEASES.get(name)
        present = known.name if known else name
        if address is None:
            self._release = RELEASES[name]
            self._places = [f"{base}/{present}" for base in ADDRESSES]
        else:
            self._release = Release(present, {}, {})
            self._places = [f"{address.rstrip('/')}/{n}" for n in dict.fromkeys((present, name))]

    def urls(self, name: str) -> list[str]:
        """Return the URLs of a file, in the order in which to try them."""
        return [f"{place}/{name}" for place in self._places]

    def is_whole(self, name: str) -> bool:
        """Return whether a file exists and is complete.

        Raises:
            UserError: the existing file is valid, but not the released one.
        """
        path = self.folder / name
        if not path.is_file():
            return False
        known = self._release.sha256.get(name)
        if known and checks.sha256(path) in known:
            return True
        try:
            checks.check_file(path, name)
        except UserError:
            return False  # a truncated copy, or an error page saved by an old program
        if known:
            raise UserError(
                f"{path}: valid, but not the file of the released {self._release.name}. Move it "
                "away to download the released one, or choose another folder."
            )
        return True

    def size(self, name: str) -> int | None:
        """Return the size of a file (bytes), or None if only the server knows it."""
        if name == DATA_FILE and name not in self._release.sizes:
            with contextlib.suppress(UserError):
                return checks.data_size(index.read(self.folder / INDEX_FILE))
        return self._release.sizes.get(name)

    def fetch(self, name: str, progress: DownloadProgress, patience: RetryPolicy) -> None:
        """Download one of the files; see `transfer.fetch`."""
        known = self._release.sha256.get(name)

        def check(path: Path) -> None:
            if not known:
                checks.check_file(path, name, self.folder / INDEX_FILE)
            elif checks.sha256(path) not in known:
                raise UserError(f"{path} is not the released {name} (its SHA-256 differs).")

        fetch(
            self.urls(name),
            self.folder / name,
            check,
            size=self.size(name),
            checked_by_sum=bool(known) or name == DATA_FILE,
            progress=progress,
            patience=patience,
        )


def download(
    models: Sequence[Download],
    progress: DownloadProgress | None = None,
    patience: RetryPolicy | None = None,
) -> None:
    """Download the missing and incomplete files of these models.

    Raises:
        UserError: a file cannot be downloaded or written, the disk is too small, another process
            downloads the same model, or a folder holds another model. Received data are kept, and
            the next call resumes.
    """
    progress, patience = progress or DownloadProgress(), patience or RetryPolicy()
    models = list({model.folder: model for model in models}.values())
    with contextlib.ExitStack() as stack:
        for model in models:
            stack.callback(_remove_if_empty, model.folder)
            files.make_folder(model.folder)
            stack.enter_context(download_lock(model.folder))
        missing = [(model, name) for model in models for name in FILES if not model.is_whole(name)]
        for model in models:
            for name in FILES:
                if (model, name) not in missing:
                    clear(model.folder / name)
        present = sum(received(model.folder / name) for model, name in missing)
        sizes = (model.size(name) or size_at(model.urls(name), patience) for model, name in missing)
        needed = sum(size or 0 for size in sizes) - present
        if missing:
            check_space(missing[0][0].folder, needed)
            progress.planned(needed, present)
        for model, name in missing:
            if name == DATA_FILE and model.is_whole(name):
                # Existing data, which the index that was missing now proves complete.
                progress.advance((model.folder / name).stat().st_size)
            else:
                model.fetch(name, progress, patience)
        for model in models:
            _check_together(model.folder)


def _remove_if_empty(path: Path) -> None:
    """Remove an empty folder, which would hide the one of the model's other name."""
    with contextlib.suppress(OSError):
        path.rmdir()


def _check_together(path: Path) -> None:
    """Check that the checkpoint, hparams.json and the two files of the vocabulary fit together."""
    model = folder.ModelFolder(path)
    model.tokenizer()
    bundle.check_against(model.checkpoint, model.hparams, path / folder.HPARAMS_FILE)


class Finding(NamedTuple):
    """The result for one file: its path, whether it is complete, and why."""

    path: Path
    whole: bool
    words: str


def verify(path: Path) -> Iterator[Finding]:
    """Verify every file of a model or run, without network access or changes.

    Yields one finding per file, as it is done.
    """
    release = RELEASES.get(path.name)
    names = [folder.HPARAMS_FILE, ENCODER_FILE, MERGES_FILE]
    if (path / folder.STATE_FILE).exists() or release:
        names.append(folder.STATE_FILE)
    try:
        prefix = folder.latest_checkpoint(path) or path / "model.ckpt"
    except UserError:
        prefix = path / "model.ckpt"
    data = bundle.data_files(prefix) or [bundle.with_ending(prefix, bundle.DATA)]
    names += [bundle.with_ending(prefix, bundle.INDEX).name, *(file.name for file in data)]
    sound = True
    for name in names:
        finding = _examine(path / name, bundle.with_ending(prefix, bundle.INDEX), release)
        sound &= finding.whole
        yield finding
    if sound:
        try:
            hparams = HParams.load(path / folder.HPARAMS_FILE)
            bundle.check_against(prefix, hparams, path / folder.HPARAMS_FILE)
        except UserError as error:
            yield Finding(prefix, False, str(error))
        try:
            read_vocabulary(path)
        except UserError as error:
            yield Finding(path / MERGES_FILE, False, str(error))


def _examine(path: Path, index_path: Path, release: Release | None) -> Finding:
    if not path.is_file():
        return Finding(path, False, "is missing")
    try:
        checks.check_file(path, path.name, index_path)
    except UserError as error:
        return Finding(path, False, str(error))
    known = release.sha256.get(path.name) if release else None
    if release is None or not known:
        has_tensors = ".data-" in path.name
        return Finding(path, True, "OK (checksum of every tensor)" if has_tensors else "OK")
    if checks.sha256(path) in known:
        return Finding(path, True, f"OK (SHA-256 of the released {release.name})")
    return Finding(path, True, f"OK, but not the file of the released {release.name}")
