"""How a command ends: its exit code, and one sentence on standard error when something is wrong."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from gpt2.commands import signals
from gpt2.errors import UserError

OK, FAILED, USAGE = 0, 1, 2
INTERRUPTED = signals.INTERRUPTED


class UsageError(Exception):
    """The command line itself is wrong. The sentence has no period; a hint at --help follows."""


def run(command: Callable[[], None], program: str) -> NoReturn:
    """Run a command and exit: 0 on success, 1 if the user must act, 2 for a wrong command line.

    Args:
        program: how the command was called, for the sentence on wrong usage.
    """
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        # Text is UTF-8 whatever the system's code page is, and printing it never fails.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    signals.end_on_termination()
    try:
        command()
        sys.stdout.flush()
    except UsageError as error:
        fail(f"{program}: {error}; see {program} --help.", USAGE)
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt as interrupt:
        with contextlib.suppress(OSError):  # the terminal may be gone
            print(f"\n{str(interrupt) or 'interrupted'}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output (head, less) is gone, and so is the reason to write more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except OSError as error:
        # A path that the system refuses for a reason of its own: too long a name, no permission.
        if error.filename is None:
            report_bug()
        fail(f"{error.filename}: {error.strerror}. Check the path.")
    except Exception:
        report_bug()
    sys.exit(OK)


def fail(sentence: str, code: int = FAILED) -> NoReturn:
    """Print one sentence on standard error and exit."""
    print(sentence, file=sys.stderr)
    sys.exit(code)


def report_bug() -> NoReturn:
    """Print the current exception as a bug report and exit with code 1."""
    print(
        "Internal error. This is a bug in retrain-gpt2; please report it with the command and the "
        "lines below.",
        file=sys.stderr,
    )
    traceback.print_exc()
    sys.exit(FAILED)
