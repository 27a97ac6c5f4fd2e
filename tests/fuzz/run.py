"""The long form: every reader gets 100,000 malformed files.

python -m tests.fuzz.run [READER]... [--inputs 100000]

The results of each reader are written to the JSON file and docs/reliability.md when it ends;
readers can be run one by one. The process may allocate 512 MB, so that a reader which trusts the
sizes declared in a file fails. A file that reveals a bug is kept in the current folder.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests import reliability
from tests.fuzz.engine import Finding, fuzz
from tests.fuzz.readers import readers

MORE_MEMORY = 512 << 20  # bytes


def limit_memory() -> None:
    """Limit the memory of this process to `MORE_MEMORY` more than it has."""
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MORE_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> None:
    known = readers()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("readers", nargs="*", metavar="READER", help=", ".join(known))
    parser.add_argument("--inputs", type=int, default=100_000, help="files for each reader")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--out", type=Path, default=reliability.FUZZ)
    args = parser.parse_args()
    limit_memory()
    for name in args.readers or known:
        begin = time.perf_counter()
        try:
            figures = fuzz(
                known[name], args.inputs, args.seed, Path(f"finding-{name.replace(' ', '-')}")
            )
        except Finding as finding:
            sys.exit(f"{name}: {finding}")
        seconds = time.perf_counter() - begin
        found = {
            "inputs": figures.inputs,
            "refused": figures.refused,
            "read": figures.inputs - figures.refused,
            "ends": figures.places,
            "slowest_milliseconds": round(1000 * figures.slowest, 1),
            "seconds": round(seconds, 1),
            "seed": args.seed,
        }
        reliability.keep(args.out, name, found)
        print(f"{name}: {figures.inputs:,} files, {figures.refused:,} refused, {seconds:.0f} s")


if __name__ == "__main__":
    main()
