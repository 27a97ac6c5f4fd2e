"""examples/digits: what its model is given to learn, and the whole way with hardly any training."""

from __future__ import annotations

import importlib.util
import itertools
import re
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from gpt2.checkpoint.folder import ModelFolder
from tests.commands.toolkit_copy import REPOSITORY, Toolkit

datasets = pytest.importorskip("sklearn.datasets", reason="the pictures are scikit-learn's")

SCRIPT = "examples/digits/digits.py"
CAPTION = r"(a (?:zero|one|two|three|four|five|six|seven|nine)|an eight)"
PICTURE = r"((?:<\|[0-4]\|>){64})"


@pytest.fixture(scope="module")
def digits() -> ModuleType:
    specification = importlib.util.spec_from_file_location("digits", REPOSITORY / SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_every_fifth_picture_is_kept_back_and_none_of_them_is_learnt(digits: ModuleType) -> None:
    known, unknown = digits.load_pictures()
    pictures, names = datasets.load_digits(return_X_y=True)
    levels = np.rint(pictures / 4).astype(int)
    assert [digit for _, digit in unknown] == names[::5].tolist()
    assert np.array_equal([picture for picture, _ in unknown], levels[::5])
    assert len(known) + len(unknown) == len(names)
    learnt = {tuple(digits.levels(line)) for line in digits.documents(known, 1)}
    assert not any(tuple(picture) in learnt for picture, _ in unknown)


def test_a_document_is_a_picture_with_its_caption_before_or_behind_it(digits: ModuleType) -> None:
    picture = [0] * 9 + [4] + [0] * 46 + [1] * 8  # a point near the upper left, a line below
    lines = digits.documents([(picture, 8)], 1)
    before = [re.fullmatch(CAPTION + PICTURE, line) for line in lines]
    behind = [re.fullmatch(PICTURE + CAPTION, line) for line in lines]
    assert (sum(map(bool, before)), sum(map(bool, behind)), len(lines)) == (3, 9, 12)
    assert {found[1] for found in before if found} == {"an eight"}
    assert {found[2] for found in behind if found} == {"an eight"}
    assert {tuple(digits.levels(found[2])) for found in before if found} == {tuple(picture)}
    frame = np.array(picture).reshape(8, 8)
    moved = {tuple(digits.levels(found[1])) for found in behind if found}
    for down, right in itertools.product((-1, 0, 1), repeat=2):
        wanted = np.zeros((10, 10), int)
        wanted[1 + down : 9 + down, 1 + right : 9 + right] = frame
        moved.remove(tuple(wanted[1:9, 1:9].ravel().tolist()))
    assert not moved


@pytest.mark.slow
def test_the_ordinary_commands_go_the_whole_way(digits: ModuleType, tmp_path: Path) -> None:
    toolkit = Toolkit(tmp_path / "toolkit")
    (toolkit.root / "examples" / "digits").mkdir(parents=True)
    shutil.copy(REPOSITORY / SCRIPT, toolkit.root / SCRIPT)
    done = toolkit.run(f"python {SCRIPT} --steps 2")
    assert done.code == 0, done
    assert re.findall(r"^\$ python src/(\w+)\.py", done.out, re.MULTILINE) == [
        *["new_model"] * 2,
        *["encode", "train"],
        *["generate_conditional_samples"] * 2,
    ]
    assert re.search(r"\nDrawn from captions .*: \d+ of 200, \d+%\n", done.out)
    assert re.search(r"\nCaptions that are right, .*: \d+ of 360, \d+%\n", done.out)
    tokenizer = ModelFolder(toolkit.root / "checkpoint" / "digits-run").tokenizer()
    data = toolkit.root / digits.DATA
    with np.load(data / "known.npz") as file:
        tokens = np.concatenate([file[name] for name in file.files])
    assert tokenizer.decode(tokens.tolist()).split("<|endoftext|>")[:-1] == (
        (data / "known.txt").read_text("utf-8").splitlines()
    )
    # Every document fills the window, so a point of a picture has always one of two places.
    assert set(np.diff(np.flatnonzero(tokens == tokenizer.endoftext))) == {digits.WINDOW}
