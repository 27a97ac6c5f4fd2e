"""From measurements to tables: medians over the rounds, ratios within a round."""

from __future__ import annotations

import datetime
import json
import statistics
from pathlib import Path

from gpt2 import files
from gpt2.errors import UserError

# What a round measures of a system; "first" is in seconds, the others are tokens per second.
SINGLE, BATCH, FIRST, NEAR_START, NEAR_END = "single", "batch", "first", "near_start", "near_end"


def text(result: dict) -> str:
    """All of a result in Markdown."""
    parts = [_preface(result), _speeds(result), *_ratios(result), _sessions(result)]
    return "\n\n".join(part for part in parts if part)


def write_section(path: Path, section: str, name: str = "benchmark") -> None:
    """Put text between the two markers of a Markdown file, at its end if it has none yet.

    Raises:
        UserError: the file has only the first of them, or cannot be written.
    """
    opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
    old = files.read_text(path) if path.exists() else ""
    before, begin, rest = old.partition(opening)
    _, end, after = rest.partition(closing)
    if begin and not end:
        raise UserError(f"{path} has {opening} but no {closing} after it; add it or take that out.")
    if not begin:
        before, after = (f"{old.rstrip()}\n\n" if old.strip() else ""), "\n"
    files.write_text(path, f"{before}{opening}\n{section}\n{closing}{after}")


# Measures of the README's table.
START = "command to first token, {} {}"
SPEED = "generation, 124M {}, batch size 1"
BATCH_SPEED = "generation, 124M {}, batch size {}"
PREFILL = "prompt of {} tokens, 124M {}"
TRAINING = "training step, GPT-2 {1}, 1 x 1024 tokens, {0}"
ENCODING = "encoding text"
KINDS = {"litert none": "float32", "litert int8": "int8", "litert int4": "int4"}

# Beside the pages: one line per measurement, with its date and machine.
RESULTS = "results.jsonl"


def record(page: Path, cpu: str, measured: dict[str, str]) -> None:
    """Append measurements to the results beside a page, for the table of the README.

    Args:
        page: the page that was written.
        cpu: the processor, as `machine.describe` gives it.
        measured: value and unit of each measure.
    """
    date = datetime.date.today().isoformat()
    with open(page.parent / RESULTS, "a", encoding="utf-8") as file:
        for name, value in measured.items():
            line = {"date": date, "cpu": cpu, "measure": name, "value": value}
            file.write(json.dumps(line) + "\n")


def record_speeds(page: Path, result: dict) -> None:
    """Record the speeds of this project's engines on GPT-2 124M."""
    sizes = result["sizes"]
    if round(result["model"]["parameters"], -6) != 124_000_000:
        return
    for name in result["fast"]:
        if name not in result["systems"]:
            continue
        system, kind = result["systems"][name], KINDS[name]
        speeds = {
            SPEED.format(kind): (SINGLE, "{:.0f} tokens/s"),
            BATCH_SPEED.format(kind, sizes["batch"]): (BATCH, "{:.0f} tokens/s"),
            PREFILL.format(sizes["long"], kind): (FIRST, "{:.2f} s"),
        }
        measured = {
            measure: form.format(_median(values))
            for measure, (key, form) in speeds.items()
            if (values := _values(system, key))
        }
        record(page, result["machine"]["cpu"], measured)


def summary(folder: Path) -> str:
    """Return a table of the latest result of each measure in a folder of pages."""
    latest: dict[str, dict] = {}
    for line in files.read_text(folder / RESULTS).splitlines():
        found = json.loads(line)
        latest[found["measure"]] = found
    rows = [
        [name, found["value"], found["cpu"], found["date"]]
        for name, found in sorted(latest.items())
    ]
    return table(["measured", "result", "processor", "date"], rows)


def _preface(result: dict) -> str:
    machine, model, sizes = result["machine"], result["model"], result["sizes"]
    one, every = (_median(result["bandwidth"][key]) for key in ("one thread", "all threads"))
    memory = f", {machine['memory'] / 2**30:.0f} GiB" if machine["memory"] else ""
    versions = dict.fromkeys(system["version"] for system in result["systems"].values())
    return (
        f"Measured on {result['date']} by `benchmarks/generation.py`: {machine['cpu']}, "
        f"{machine['cores']} cores{memory} ({' '.join(machine['flags'])}), reading memory at "
        f"{one / 1e9:.1f} GB/s with one thread and {every / 1e9:.1f} GB/s with all. "
        f"{model['name']}, {model['parameters'] / 1e6:.0f}M parameters; {sizes['new']} new tokens "
        f"after a prompt of {sizes['short']}, top_k {sizes['top_k']}. Median of "
        f"{result['rounds']} rounds; in each round every system runs once in its own process, "
        f"after a warm-up{_spread(result)}. Bold: this project. "
        f"Versions: {', '.join(versions)}."
    )


def _spread(result: dict) -> str:
    """How steady the machine was: other processes, and tokens per second of all rounds."""
    ranges = [
        max(values) / min(values) - 1
        for values in (_values(system, SINGLE) for system in result["systems"].values())
        if len(values) > 1
    ]
    others = f"other load at most {result['others']:.0%}"
    if not ranges:
        return f" ({others})"
    return (
        f" ({others}; the fastest round at batch size 1 was {_median(ranges):.0%} faster than the "
        f"slowest, at most {max(ranges):.0%})"
    )


def _speeds(result: dict) -> str:
    sizes = result["sizes"]
    heads = [
        "system",
        "tokens/s",
        "of the bandwidth limit",
        f"batch {sizes['batch']}, tokens/s",
        f"{sizes['long']}-token prompt, s",
        f"tokens/s near position {sizes['near']}",
        f"near {sizes['long']}",
    ]
    limit = _median(result["bandwidth"]["all threads"])
    rows = []
    for name, system in result["systems"].items():
        speed = _median(_values(system, SINGLE))
        share = speed and system["weight_bytes"] * speed / limit
        rows.append(
            [
                f"**{name}**" if system["ours"] else name,
                _number(speed),
                f"{share:.0%}" if share else "-",
                _number(_median(_values(system, BATCH))),
                _number(_median(_values(system, FIRST)), digits=2),
                _number(_median(_values(system, NEAR_START))),
                _number(_median(_values(system, NEAR_END))),
            ]
        )
    return table(heads, rows)


def _ratios(result: dict) -> list[str]:
    """How many times faster each engine of this project is than each of the others."""
    systems = result["systems"]
    ours = [name for name in systems if name in result["fast"]]
    others = [name for name in systems if not systems[name]["ours"]]
    if not ours or not others:
        return []
    sizes = result["sizes"]
    cases = {
        SINGLE: "batch 1",
        BATCH: f"batch {sizes['batch']}",
        FIRST: f"{sizes['long']}-token prompt",
    }
    heads = ["speedup over", *(f"{name}, {case}" for name in ours for case in cases.values())]
    rows = [
        [
            other,
            *(
                _number(_ratio(systems[name], systems[other], case), digits=2)
                for name in ours
                for case in cases
            ),
        ]
        for other in others
    ]
    return [table(heads, rows)]


def _ratio(system: dict, other: dict, case: str) -> float | None:
    """The median of the ratios within each round; above 1 if the first is the faster one."""
    pairs = [
        (one[case], two[case])
        for one, two in zip(system["rounds"], other["rounds"], strict=True)
        if one.get(case) and two.get(case)
    ]
    return _median([two / one if case == FIRST else one / two for one, two in pairs])


def _sessions(result: dict) -> str:
    if not result["sessions"]:
        return ""
    heads = [
        "session",
        "load time, s",
        "peak memory, MB",
        "weights in use, MB",
        "1.3 x weights + 600 MB",
        "slowdown, last 10 vs. 4th to 13th generation",
        "memory growth since the third, MB",
    ]
    rows = []
    for name, session in result["sessions"].items():
        system = result["systems"][name]
        weights = system["all_weight_bytes"]
        rows.append(
            [
                f"**{name}**",
                _number(_median(_values(system, "ready"))),
                _number(_median(_values(system, "peak")), scale=1e6, digits=0),
                _number(weights, scale=1e6, digits=0),
                _number(1.3 * weights + 600e6, scale=1e6, digits=0),
                _slower(session["seconds"]),
                _grown(session["memory"]),
            ]
        )
    count = max(len(session["seconds"]) for session in result["sessions"].values())
    return table(heads, rows) + f"\n\nThe last two columns are for {count} generations."


def _slower(seconds: list[float]) -> str:
    early, late = seconds[3:13], seconds[-10:]
    if len(early) < 10:
        return "-"
    return f"{_median(late) / _median(early) - 1:+.1%}"


def _grown(memory: list[int]) -> str:
    if len(memory) <= 3 or None in memory:
        return "-"
    return f"{(memory[-1] - memory[2]) / 1e6:+.1f}"


def _values(system: dict, key: str) -> list[float]:
    return [round_[key] for round_ in system["rounds"] if round_.get(key)]


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def _number(value: float | None, scale: float = 1, digits: int = 1) -> str:
    return "-" if value is None else f"{value / scale:.{digits}f}"


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table that is also legible as it stands."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]

    def line(cells: list[str]) -> str:
        first, *others = (
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *others]) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(map(line, [heads, rule, *rows]))
