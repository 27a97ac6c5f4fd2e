"""Stores the results of the harnesses, and writes them as tables into docs/reliability.md."""

from __future__ import annotations

import datetime
import json
import platform
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "src")]

import machine
import report

PAGE = ROOT / "docs" / "reliability.md"
FAULTS, FUZZ = ROOT / "docs" / "faults.json", ROOT / "docs" / "fuzz.json"


def keep(path: Path, name: str, figures: dict) -> None:
    """Store results under a name, with the date and the machine."""
    described = machine.describe()
    figures |= {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "machine": f"{described['cpu']}, {described['cores']} cores",
    }
    every = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(every | {name: figures}, indent=2, sort_keys=True) + "\n")
    if path in (FAULTS, FUZZ):
        write_page()


def write_page() -> None:
    """Write the tables of the stored results."""
    for path, section, name in ((FAULTS, _faults, "faults"), (FUZZ, _fuzz, "fuzz")):
        if path.is_file():
            report.write_section(PAGE, section(json.loads(path.read_text())), name)


def _faults(every: dict) -> str:
    kills = {name: found for name, found in every.items() if "kills" in found}
    refusals = {name: found for name, found in every.items() if "calls" in found}
    parts = []
    if kills:
        heads = ["killed", "kills", "during a write", "resumed", "most steps lost", "seed", "date"]
        rows = [
            [
                name,
                f"{found['kills']}",
                f"{found['writing']}",
                f"{found['resumed']} of {found['kills']}",
                "-" if found["most_lost"] is None else f"{found['most_lost']}",
                f"{found['seed']}",
                found["date"],
            ]
            for name, found in kills.items()
        ]
        notes = [f"{name}: {found['note']}." for name, found in kills.items() if found["note"]]
        parts += [report.table(heads, rows), *notes]
    if refusals:
        heads = [
            "save with a failing call",
            "calls",
            "error reported",
            "old checkpoint current",
            "new checkpoint current",
            "date",
        ]
        rows = [
            [name, *(f"{found[key]}" for key in ("calls", "refused", "old", "new")), found["date"]]
            for name, found in refusals.items()
        ]
        parts.append(report.table(heads, rows))
    return "\n\n".join([*parts, _machines(every, "make faults")])


def _fuzz(every: dict) -> str:
    heads = ["reader", "files", "refused", "read", "ends", "slowest, ms", "seed", "date"]
    rows = [
        [
            name,
            *(f"{found[key]:,}" for key in ("inputs", "refused", "read", "ends")),
            f"{found['slowest_milliseconds']:.0f}",
            f"{found['seed']}",
            found["date"],
        ]
        for name, found in every.items()
    ]
    return report.table(heads, rows) + "\n\n" + _machines(every, "make fuzz")


def _machines(every: dict, command: str) -> str:
    found = sorted({f"{it['machine']}, Python {it['python']}" for it in every.values()})
    return f"Measured by `{command}` on: {'; '.join(found)}."
