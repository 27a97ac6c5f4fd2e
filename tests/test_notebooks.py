"""The notebooks run from top to bottom, and their pages of the docs show them as they are."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
LARGEST = 300_000  # bytes of all notebooks


def load_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / "tools/run_notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = load_tool()


@pytest.mark.slow
def test_the_notebooks_run_in_their_order_and_have_the_outputs_that_are_committed(
    tmp_path: Path,
) -> None:
    missing = [name for name in ("nbclient", "ipykernel", "matplotlib") if not found(name)]
    if missing and os.environ.get("CI") != "true":
        pytest.skip(f"{', '.join(missing)}: not installed")
    assert [path.name[:2] for path in TOOL.paths()] == ["01", "02", "03"]
    for path in TOOL.paths():
        committed = json.loads(path.read_text(encoding="utf-8"))
        new = TOOL.execute(path, tmp_path)
        assert kinds(new) == kinds(committed), f"{path.name}: run tools/run_notebooks.py"
    assert (tmp_path / "checkpoint" / "stories").is_dir()


def found(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def kinds(notebook: dict) -> list[tuple[str, list[str]]]:
    """Return the source of each cell and the kinds of its outputs.

    Numbers differ from machine to machine.
    """
    return [
        (
            "".join(cell["source"]),
            [key for output in cell.get("outputs", []) for key in sorted(output.get("data", "s"))],
        )
        for cell in notebook["cells"]
    ]


@pytest.mark.parametrize("path", TOOL.paths(), ids=lambda path: path.stem)
def test_the_page_of_a_notebook_is_current(path: Path) -> None:
    page = TOOL.PAGES / f"{path.stem}.md"
    assert page.read_text(encoding="utf-8") == TOOL.page(path)


def test_the_notebooks_are_small_and_name_no_folder_of_a_machine() -> None:
    texts = [path.read_text(encoding="utf-8") for path in TOOL.paths()]
    assert sum(map(len, texts)) < LARGEST
    assert [text for text in texts if str(Path.home()) in text or "/tmp/" in text] == []


def test_progress_bars_and_counters_are_not_saved() -> None:
    outputs = [
        {"output_type": "stream", "name": "stderr", "text": ["50%|###"]},
        {"output_type": "stream", "name": "stdout", "text": ["1/2\r2/2\n"]},
        {"output_type": "stream", "name": "stdout", "text": ["kept\n"]},
    ]
    cell = {"cell_type": "code", "source": [], "execution_count": 7, "outputs": outputs}
    cell = TOOL.cleaned({"cells": [cell]})["cells"][0]
    assert (cell["execution_count"], [each["text"] for each in cell["outputs"]]) == (
        None,
        [["kept\n"]],
    )
