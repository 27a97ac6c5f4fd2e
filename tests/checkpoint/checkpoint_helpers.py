"""Small models' tensors for the tests of this folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gpt2.checkpoint import folder
from gpt2.checkpoint.run import RunFolder
from gpt2.hparams import HParams

# Eleven layers, so that the order of the names (h1, h10, h2) is not that of the numbers.
SMALL = HParams(n_vocab=13, n_ctx=7, n_embd=4, n_head=2, n_layer=11)
TINY = HParams(n_vocab=11, n_ctx=5, n_embd=4, n_head=2, n_layer=1)


def random_tensors(hparams: HParams, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        name: random.standard_normal(shape).astype(np.float32)
        for name, shape in hparams.tensor_shapes().items()
    }


def assert_same(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """Equal names, and equal numbers bit for bit."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def latest(run: RunFolder) -> tuple[Path, int] | None:
    """Prefix and step of a run's current checkpoint, None if it has none."""
    prefix = folder.latest_checkpoint(run.path)
    return None if prefix is None else (prefix, run.step_of(prefix))


def last_step(run: RunFolder) -> int:
    """The step of a run's current checkpoint, 0 if it has none."""
    current = latest(run)
    return current[1] if current else 0


def copy_folder(source: Path, target: Path) -> Path:
    """A writable copy of a folder whose files may not be."""
    target.mkdir()
    for path in source.iterdir():
        shutil.copyfile(path, target / path.name)
    return target
