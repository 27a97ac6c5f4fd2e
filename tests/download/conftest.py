"""A tiny model and a server that offers it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt2.checkpoint.folder import write_checkpoint_state
from gpt2.tokenizer import train_vocabulary, write_vocabulary
from tests.download import misbehaving_server
from tests.fuzz.index_files import table
from tests.fuzz.readers import TINY, tiny_checkpoint


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a model, written without TensorFlow, which takes seconds to import."""
    folder = tmp_path_factory.mktemp("model")
    data, entries = tiny_checkpoint()
    (folder / "model.ckpt.data-00000-of-00001").write_bytes(data)
    (folder / "model.ckpt.index").write_bytes(table(entries))
    (folder / "model.ckpt.meta").write_bytes(b"a graph, which is never read")
    TINY.save(folder / "hparams.json")
    write_checkpoint_state(folder, ["model.ckpt"])
    vocabulary, merges = train_vocabulary(["so much text in so few words so it is " * 9], 270)
    write_vocabulary(folder, vocabulary, merges)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def server(tiny: dict[str, bytes]) -> Iterator[misbehaving_server.Server]:
    """A server that offers the model as 124M and as 1558M."""
    with misbehaving_server.serving() as running:
        for model in ("124M", "1558M"):
            for name, content in tiny.items():
                running.files[f"/{model}/{name}"] = misbehaving_server.File(content)
        yield running


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect to this machine without a proxy."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.fixture
def write(tiny: dict[str, bytes], tmp_path: Path):
    """A function that writes the model, or some of its files, under models/."""

    def write(name: str, *, without: tuple[str, ...] = ()) -> Path:
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        for file, content in tiny.items():
            if file not in without:
                (folder / file).write_bytes(content)
        return folder

    return write
