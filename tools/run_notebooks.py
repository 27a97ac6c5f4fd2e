#!/usr/bin/env python3
"""Run the notebooks from top to bottom, save their outputs, and write their pages of the docs.

    python tools/run_notebooks.py              run all, save notebooks/ and docs/notebooks/
    python tools/run_notebooks.py --pages      write the pages from the notebooks as they are

The notebooks share a temporary folder, as they do for a reader. Progress bars and counters are not
saved, so that a notebook changes only if its code or its results do. The pages are written here and
not by a plugin of MkDocs: it takes a few lines, and no Jupyter where the site is built.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
PAGES = ROOT / "docs" / "notebooks"
CELL_TIMEOUT = 300  # seconds
LONGEST_OUTPUT = 2000  # characters of text that a cell keeps


def paths() -> list[Path]:
    """Return the notebooks in their order."""
    return sorted(NOTEBOOKS.glob("*.ipynb"))


def execute(path: Path, folder: Path) -> dict[str, Any]:
    """Return a notebook as it is after running it in a folder; an error in a cell raises."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT / "src")
    try:
        NotebookClient(
            notebook,
            timeout=CELL_TIMEOUT,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
        ).execute()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    # Some messages have absolute paths.
    text = nbformat.writes(notebook).replace(f"{folder.resolve()}{os.sep}", "")
    return cleaned(json.loads(text))


def cleaned(notebook: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook without what differs from run to run or machine to machine."""
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}
    }
    for number, cell in enumerate(notebook["cells"]):
        cell["id"] = f"cell-{number}"
        cell["metadata"] = {}
        if cell["cell_type"] != "code":
            continue
        cell["execution_count"] = None
        outputs = _merged(cell["outputs"])
        cell["outputs"] = [kept for each in outputs if (kept := _cleaned_output(each))]
    return notebook


def _merged(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join what was printed in a row: a kernel divides it by time."""
    found: list[dict[str, Any]] = []
    for output in outputs:
        name = output.get("name")
        if name and found and found[-1].get("name") == name:
            found[-1]["text"] = "".join([*found[-1]["text"], *output["text"]])
        else:
            found.append(dict(output))
    return found


def _cleaned_output(output: dict[str, Any]) -> dict[str, Any] | None:
    """Return an output of a cell without progress: lines with "\\r", and standard error."""
    if output["output_type"] == "stream":
        text = "".join(output["text"])[:LONGEST_OUTPUT]
        lines = [line for line in re.findall(r"[^\n]*\n|[^\n]+", text) if "\r" not in line]
        return None if output["name"] == "stderr" or not lines else {**output, "text": lines}
    if "execution_count" in output:
        output["execution_count"] = None
    output["metadata"] = {}
    return output


def save(path: Path, notebook: dict[str, Any]) -> None:
    """Write a notebook."""
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")


def page(path: Path) -> str:
    """Return a notebook as a page of the docs."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        else:
            parts += [f"```ipython\n{source}\n```", *map(_shown, cell["outputs"])]
    return "\n\n".join(part for part in parts if part) + "\n"


def _shown(output: dict[str, Any]) -> str:
    """Return an output of a cell as Markdown."""
    if output["output_type"] == "stream":
        return f"```text\n{''.join(output['text']).rstrip()}\n```"
    data = output["data"]
    if "text/html" in data:
        return f"<div>{''.join(data['text/html'])}</div>"
    if "image/png" in data:
        encoded = "".join("".join(data["image/png"]).split())
        return f'<img alt="Output of the cell" src="data:image/png;base64,{encoded}">'
    return f"```text\n{''.join(data['text/plain'])}\n```"


def main(words: list[str]) -> None:
    if words not in ([], ["--pages"]):
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        for path in paths():
            if not words:
                save(path, execute(path, Path(folder)))
            (PAGES / f"{path.stem}.md").write_text(page(path), encoding="utf-8")
            print(path.name, f"{path.stat().st_size / 1000:.0f} KB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
