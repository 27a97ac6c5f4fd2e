"""A small model, and a server of it on a free port of this machine."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gpt2.checkpoint.new_model import write_model_folder
from gpt2.generation.language_model import LanguageModel
from gpt2.generation.loading import open_model
from gpt2.hparams import HParams
from gpt2.tokenizer import train_vocabulary
from gpt2.web import server
from gpt2.web.api import Endpoint
from gpt2.web.registry import ModelRegistry
from gpt2.web.settings import Access, RequestLimits

HPARAMS = HParams(n_vocab=300, n_ctx=1024, n_embd=32, n_head=2, n_layer=2)
TEXT = "the cat and the hat and the bat, then the cat again and again. über 猫 🐱 "


def weights(seed: int, hparams: HParams = HPARAMS) -> dict[str, np.ndarray]:
    """Weights so large that tokens differ in probability."""
    random = np.random.default_rng(seed)
    return {
        name: random.standard_normal(shape, np.float32) * np.float32(0.3)
        for name, shape in hparams.tensor_shapes().items()
    }


def write_model(path: Path, seed: int, hparams: HParams = HPARAMS) -> Path:
    """Write a model with its own vocabulary; the seed decides its weights."""
    vocabulary, merges = train_vocabulary([TEXT * 3], hparams.n_vocab)
    write_model_folder(path, hparams, vocabulary, merges, weights(seed, hparams))
    return path


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models `small` and `other`, and `narrow` with a context of 64 tokens."""
    folder = tmp_path_factory.mktemp("workspace") / "models"
    folder.mkdir()
    write_model(folder / "small", 1)
    write_model(folder / "other", 2)
    write_model(folder / "narrow", 3, HParams(300, 64, 32, 2, 2))
    return folder


class Served:
    """A running server."""

    def __init__(self, models: ModelRegistry, address: tuple[str, int], bugs: list[BaseException]):
        self.models = models
        self.address = address
        self.bugs = bugs

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}"


def load_numpy(folder) -> LanguageModel:
    return open_model(folder, "numpy")


@contextlib.contextmanager
def serving(
    models_dir: Path,
    names: tuple[str, ...] = ("small", "other"),
    access: Access = Access("127.0.0.1"),  # noqa: B008
    limits: RequestLimits = RequestLimits(),  # noqa: B008
    slots: int = 8,
    load=load_numpy,
    with_page: bool = False,
) -> Iterator[Served]:
    """Serve models in threads of this process."""
    bugs: list[BaseException] = []
    models = ModelRegistry(names, load, str(models_dir), slots, limits.most_waiting)
    listener = server.listen("127.0.0.1", 0)
    address = listener.getsockname()
    endpoint = Endpoint(models, limits, bugs.append)
    app = endpoint.app()
    if with_page:
        from gpt2.web import page  # importing Gradio takes seconds

        page.mount(app, endpoint, str(models_dir))
    app = server.protect(app, access, limits)
    stop, ready = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=server.serve, args=(app, listener, models, stop.is_set, ready.set)
    )
    thread.start()
    assert ready.wait(30)
    try:
        yield Served(models, address, bugs)
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
    assert bugs == []


@pytest.fixture(scope="session")
def served(models_dir: Path) -> Iterator[Served]:
    with serving(models_dir) as running:
        yield running


@pytest.fixture(scope="session")
def alone(models_dir: Path) -> LanguageModel:
    """The model `small` as the samplers use it, in an engine of its own."""
    return load_numpy_at(models_dir / "small")


def load_numpy_at(path: Path) -> LanguageModel:
    from gpt2.checkpoint.folder import ModelFolder

    return open_model(ModelFolder(path), "numpy")
