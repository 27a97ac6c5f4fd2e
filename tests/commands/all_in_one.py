"""Runs command lines one after the other in one process; see `Toolkit.run_in_one_process`.

Each has its own standard streams and exit code; they share the modules that have been imported.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import sys


def run(script: str, words: list[str], typed: str) -> tuple[object, str, str]:
    """Run a script, or -m and a module; return its exit code and output."""
    module = words.pop(0) if script == "-m" else None
    sys.argv, sys.path[0] = [module or script, *words], os.path.dirname(script)
    sys.stdin = io.TextIOWrapper(io.BytesIO(typed.encode()), "utf-8")
    code: object = 0
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if module:
                runpy.run_module(module, run_name="__main__")
            else:
                runpy.run_path(script, run_name="__main__")
        except SystemExit as ended:
            code = ended.code or 0
    return code, out.getvalue(), err.getvalue()


if __name__ == "__main__":
    typed, lines = json.loads(sys.argv[1])
    results = [run(script, words, typed) for script, *words in lines]
    json.dump(results, sys.__stdout__)
