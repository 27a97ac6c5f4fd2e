"""Kill every command that writes at random moments, and make every system call of a save fail.

python -m tests.faults.run [CASE]... [--kills 100] [--seed N]

The results of each case are written to docs/faults.json and docs/reliability.md when it ends;
cases can be run one by one. A failure prints its seed.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]
os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "2", "no_proxy": "127.0.0.1"}

from gpt2.quiet import quiet

with quiet():
    from tests import reliability
    from tests.faults import kills, refusals

KILLED = {
    "training": kills.training,
    "encode.py, a file": kills.encoding,
    "encode.py, a folder": kills.encoding_shards,
    "new_model.py": kills.new_model,
    "download_model.py": kills.downloads,
    "convert.py to_hf": kills.to_hf,
    "convert.py to_gguf": kills.to_gguf,
    "convert.py from_hf": kills.from_hf,
    "conversion": kills.conversions,
    "samples of prompts": kills.samples_of_prompts,
}
# A step beyond the number of kept checkpoints; and the current step, saved a second time.
REFUSED = {"a new step": 3, "the current step": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("cases", nargs="*", metavar="CASE", help=", ".join([*KILLED, *REFUSED]))
    add("--kills", type=int, default=100, help="kills of each command")
    add("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    add("--out", type=Path, default=reliability.FAULTS)
    args = parser.parse_args()
    print("seed", args.seed, flush=True)
    for case in args.cases or [*KILLED, *REFUSED]:
        begin = time.perf_counter()
        if case in KILLED:
            with tempfile.TemporaryDirectory() as place:
                home = kills.Home(Path(place) / "home", random.Random(args.seed))
                found = KILLED[case](home, args.kills)
        elif sys.platform == "linux" and shutil.which("strace"):
            found = refusals.saves(REFUSED[case])
        else:
            print(f"{case}: skipped; it needs Linux and strace")
            continue
        reliability.keep(args.out, case, dataclasses.asdict(found) | {"seed": args.seed})
        print(f"{case}: {found}, {time.perf_counter() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
